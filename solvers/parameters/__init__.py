"""The parameters drawn for a simulation: scalars, random fields, spaces."""
