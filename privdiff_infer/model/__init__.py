"""The networks of the method and the equations between them."""
