"""User accounts: users, logins, access tokens and the dependency `CurrentUser`."""
