"""Replication: the points of the front are trained again over seeds, and what they hold then is told beside them."""
