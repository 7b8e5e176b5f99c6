"""`quickstudy kg`: which commands there are. Each lives in a module that is imported when it is called.

To add one: write it in a module of its own (`cli_kg_review.py`, as `cli_kg_ask.py` is written), what it does as a
function with plain arguments beside `kg_actions.py`, a line for it below, its test, and run `tools/make_tables.py`.
"""

from quickstudy.app.groups import Group

COMMANDS = {
    "demo": ("quickstudy.app.cli_kg_review:demo", "a graph of bundled abstracts, and how good it is"),
    "new": ("quickstudy.app.cli_kg_learn:new", "write a commented schema and a file of examples to change"),
    "learn": ("quickstudy.app.cli_kg_learn:learn", "learn a schema's entities and relations from labelled examples"),
    "extract": ("quickstudy.app.cli_kg_extract:extract", "read documents into a graph; goes on where it was stopped"),
    "add": ("quickstudy.app.cli_kg_extract:add", "put documents into a graph, to be read later"),
    "withdraw": ("quickstudy.app.cli_kg_extract:withdraw", "take documents out, with what follows from them alone"),
    "status": ("quickstudy.app.cli_kg_extract:status", "what a graph holds, what waits, what failed"),
    "show": ("quickstudy.app.cli_kg_ask:show", "an entity's triples with their sentences; or a graph's main entities"),
    "path": ("quickstudy.app.cli_kg_ask:path", "how two entities hang together"),
    "query": ("quickstudy.app.cli_kg_ask:query", "patterns with variables, or SPARQL"),
    "merges": ("quickstudy.app.cli_kg_decide:merges", "why names are taken for one thing"),
    "merge": ("quickstudy.app.cli_kg_decide:merge", "decide that two entities are one"),
    "split": ("quickstudy.app.cli_kg_decide:split", "decide that two names are not the same thing"),
    "link": ("quickstudy.app.cli_kg_decide:link", "decide that an entity is an entry of the catalogue"),
    "unlink": ("quickstudy.app.cli_kg_decide:unlink", "decide that it isn't"),
    "undo": ("quickstudy.app.cli_kg_decide:undo", "take a decision back"),
    "decisions": ("quickstudy.app.cli_kg_decide:decisions", "list what people decided"),
    "review": ("quickstudy.app.cli_kg_review:review", "answer what the graph is least sure of"),
    "relearn": ("quickstudy.app.cli_kg_review:relearn", "learn again with what was decided, and say what it gained"),
    "propose": ("quickstudy.app.cli_kg_propose:propose", "infer triples of a relation that nobody said"),
    "evaluate": ("quickstudy.app.cli_kg_review:evaluate", "judge a model on labelled documents; what more would buy"),
    "explain": ("quickstudy.app.cli_kg_review:explain", "why a triple is there, and on which examples it rests"),
    "draw": ("quickstudy.app.cli_kg_review:draw", "a picture of an entity's neighbourhood"),
    "export": ("quickstudy.app.cli_kg_files:export", "write the graph as RDF, GraphML, CSV for Neo4j or Cypher"),
    "import": ("quickstudy.app.cli_kg_files:import_", "add the triples of such a file"),
    "push": ("quickstudy.app.cli_kg_files:push", "send the graph to a Neo4j or SPARQL server"),
}  # fmt: skip
GROUP = Group(
    "kg",
    "A knowledge graph of your own field, from documents and a handful of labelled examples.",
    COMMANDS,
    (
        "quickstudy kg new finance.yaml            a schema and finance-examples.txt, to change into yours",
        "quickstudy kg learn --schema finance.yaml --examples finance-examples.txt --to finance-model",
        "quickstudy kg extract graph.db documents/ --model finance-model",
        'quickstudy kg show graph.db "Acme plc"',
    ),
)
