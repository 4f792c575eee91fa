# The stack of docker-compose.yml and compose/: one target a task. Each says what it does and what
# may come next; what takes more than a line is a script in compose/bin/.
.PHONY: up down restart logs ps status doctor shell backup restore-backup list-backups persistence-test \
        rollback forward upgrade mongo-init config env prune clean

up: ## Start everything; the first time, write .env and build the image
	@compose/bin/up.sh

down: ## Stop and remove the containers; all data stays
	@compose/bin/down.sh

restart: ## Restart the gateway, its settings from .env anew
	@compose/bin/restart.sh

logs: ## Follow the logs (ends with ^C); MongoDB's information with ALL=yes only
	@compose/bin/logs.sh

ps: ## The containers and their health
	@compose/bin/inside.sh ps

status: ## Whether the login is safe: state, lag, newest commit
	@compose/bin/inside.sh status

doctor: ## Check settings, directory, MongoDB, rights and clocks; with remedies
	@compose/bin/inside.sh doctor

shell: ## A shell in the gateway's container
	@compose/bin/inside.sh shell

backup: ## Dump MongoDB into ./backups, while everything runs
	@compose/bin/backup.sh once

list-backups: ## The backups in ./backups
	@compose/bin/backup.sh list

restore-backup: ## FILE=backups/…: bring a backup back, verify it, and switch to it
	@compose/backup/restore-backup.sh "$(FILE)"

persistence-test: ## Show that the login survives: down, session directory away, up, compare
	@compose/bin/persistence-test.sh

rollback: ## From MongoDB to plain files, keeping the newest state
	@compose/bin/mode.sh rollback

forward: ## From plain files to MongoDB, keeping the newest state
	@compose/bin/mode.sh forward

upgrade: ## Bring the images to the versions in .env, with a backup before
	@compose/bin/upgrade.sh

mongo-init: ## Bring MongoDB's user, indexes and rules to what .env says
	@compose/bin/mongo-init.sh

config: ## The settings in force inside the gateway's container, and where each comes from
	@compose/bin/inside.sh config

env: ## Write .env with generated passwords, if there is none
	@compose/bin/env.sh
	@echo "Next: look through .env, then make up"

prune: ## Delete what restore-backup and persistence-test have put away; asks first
	@compose/bin/prune.sh

clean: ## Delete the stack WITH ITS DATA; says what, and asks first
	@compose/bin/clean.sh
