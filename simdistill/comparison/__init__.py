"""Many runs on one teacher with equal budgets, and what their differences are worth."""
