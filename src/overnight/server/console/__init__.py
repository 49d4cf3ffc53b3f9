"""The console: pages for people in a browser. `routes.CONSOLE_ROUTES` names them all."""
