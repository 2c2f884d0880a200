"""How to speak to each database: one module for each library, named after it."""
