"""The paper: each formula in the file whose name says so."""
