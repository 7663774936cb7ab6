"""`simdistill gallery`: the densities in two dimensions, distilled and decoded."""
