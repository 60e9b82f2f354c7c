"""What every route shares: access, bodies, problems, query strings and answers."""
