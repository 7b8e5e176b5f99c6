"""`quickstudy bank`: which commands there are. Each lives in a module that is imported when it is called."""

from quickstudy.app.groups import Group

_USE = "quickstudy.app.cli_bank_use"
COMMANDS = {
    "list": (f"{_USE}:list_", "the tasks that are kept on this machine"),
    "show": (f"{_USE}:show", "all that is kept of one, and by whose word"),
    "add": (f"{_USE}:add", "keep what a model was learned from"),
    "nearest": (f"{_USE}:nearest", "which kept tasks are near a model's, and what they explain of it"),
    "export": (f"{_USE}:export", "write tasks to a folder that can be given away"),
    "import": (f"{_USE}:import_", "keep the tasks of such a folder"),
    "forget": (f"{_USE}:forget", "remove a task, to the last byte"),
}
GROUP = Group(
    "bank",
    "Tasks that were met and kept, so that the next one starts from them. Nothing is kept without your word.",
    COMMANDS,
    (
        "quickstudy adapt examples.csv --out my-model --keep",
        "quickstudy bank add my-model --name support     the same for a model that is there already",
        "quickstudy bank nearest my-model",
    ),
)
