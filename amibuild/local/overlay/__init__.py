"""What moto says yes to too easily, answered as EC2 and SSM answer it, with real machines behind.

moto keeps the books: its classes hold what was asked for, and turn it into AWS's XML and JSON.
The classes here stand in for its EC2 and SSM backends and responses, split by resource, as moto's
own are. `desk.py` is what they share; `loading.py` puts them in moto's place.
"""
