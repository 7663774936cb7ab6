"""What makes the tables and the pictures of these pages."""
