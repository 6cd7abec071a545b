"""Studies as text: tables for the terminal."""
