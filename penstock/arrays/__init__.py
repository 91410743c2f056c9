"""Values as arrays: converted, checked, ragged; and finite elements on simplices."""
