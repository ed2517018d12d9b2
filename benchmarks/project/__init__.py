"""What runs in the generated project's environment, with the project as the working folder."""
