"""Measurements that anyone can repeat on their own data: `bbans bench`."""
