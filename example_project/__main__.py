"""Sets up the environment, then backfills a month of flights: `python3 -m example_project`."""

from example_project.environment import run_inside

if __name__ == "__main__":
    run_inside("example_project")
    from example_project.demo import main

    main()
