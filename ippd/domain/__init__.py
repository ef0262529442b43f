"""The domain: users, experiments, files and what happens to them. It knows no HTTP; what it needs from above comes as an argument."""
