"""Many runs on one teacher with equal budgets, and the significance of their differences."""
