"""What ContentHub is compared with, each at the best settings found for it on SQLite."""
