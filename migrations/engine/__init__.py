"""The update engine. `__main__` runs its two stages; docs/update-engine.md in the template's repository explains it.

preflight         refuse what would go wrong, before anything is touched
snapshot          save what git does not keep, and read it in the second stage
project           where the project is, and its answers
rendering         write the project that a release gives for some answers, and keep it as the next update's base
merging           merge base, project and release, one piece per file
trees             folders as git trees
owners            the owner classes of owners.yml
worktree          write the result to the work tree and the index
settings_files    add new settings to secret/.env.*
reporting         the report
changed_answers   what a changed answer asks of the owner
release           what a release declares; the declarations are in `releases`
versions          which release a commit of the template is
git, problem      calling git; what stops an update
"""
