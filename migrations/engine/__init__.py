"""The update engine. `__main__` runs its two stages; docs/update-engine.md in the template's repository explains it.

update            what Copier passes to the stages
before            the stage before Copier touches the project
  preflight       refuse what would go wrong
  snapshot        save what git does not keep, for the stage after
after             the stage after Copier has patched the project
  rendering       write the project that a release gives for some answers, and keep it as the next update's base
  moves           where the releases moved the template's files
  pieces          split an update into pieces, one per file
  merging         merge the pieces, with the rules of the owner classes
  worktree        write the result to the work tree and the index
  settings_files  add new settings to secret/.env.*
  stale_imports   find renamed modules and names in the owner's files
  changed_answers what a changed answer asks of the owner
  reporting       the report
release           what a release declares; the declarations are in `releases`
versions          which release a commit of the template is
project           where the project is, and its answers
owners            the owner classes of owners.yml
trees             folders as git trees
git, files        calling git, reading and writing files
problem           what stops an update
"""
