"""From encoder states to text: search, token rules, fallback, and recordings of any length."""
