package catalog

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// nodeKind is what a node of the graph stands for.
type nodeKind uint8

const (
	nodeFunction nodeKind = iota
	nodeOperator
	nodeRead  // reading a relation
	nodeWrite // writing to a relation
	nodeType
)

type nodeID struct {
	kind nodeKind
	oid  uint32
}

// node is a function, an operator, a type, or one use of a relation, and what
// it uses in turn.
type node struct {
	schema, name string
	// what is how a reason begins: "calls volatile function f".
	what string
	// verdict is the node's own at first, and that of all it uses after settle.
	verdict Verdict
	// direct, when set, is the verdict for a call written in the statement
	// itself: its effects are known by its name.
	direct *Verdict
	uses   []nodeID
	// mentions are what the body of a function names whose volatility is taken
	// at its word: only what they ask for counts.
	mentions []nodeID

	minArgs, maxArgs int
	attribute        bool
	body             *string
	// volatile is as a function is declared; unsteady is the opposite of what Steady tells.
	volatile, unsteady bool
	// view is set for uses of a view, which has no rows of its own.
	view bool
}

// graph is all that is read from the catalog, before it is condensed.
type graph struct {
	nodes map[nodeID]*node
	// byName finds functions and relations by name, for function bodies.
	byName map[string][]nodeID
	// typesByName finds the types in typeRow's query.
	typesByName map[string][]nodeID
	// userOperators are the operators made after initdb.
	userOperators []nodeID
}

// commandNode stands for any command that changes the catalog and so fires
// event triggers.
var commandNode = nodeID{nodeWrite, 0}

func newGraph() *graph {
	g := &graph{nodes: make(map[nodeID]*node, 8192), byName: make(map[string][]nodeID, 8192),
		typesByName: map[string][]nodeID{}}
	g.nodes[commandNode] = &node{what: "fires an event trigger"}
	g.nodes[commandNode].judge(Writes, "changes the catalog")
	return g
}

func (g *graph) add(id nodeID, n *node) {
	g.nodes[id] = n
	g.byName[n.name] = append(g.byName[n.name], id)
}

func (g *graph) functionRow(r pgx.CollectableRow) (struct{}, error) {
	var (
		oid                  uint32
		volatility, language string
		extension            *string
		n                    = &node{verdict: Verdict{Found: true}}
	)
	err := r.Scan(&oid, &n.schema, &n.name, &volatility, &language, &extension, &n.minArgs, &n.maxArgs, &n.body, &n.attribute)
	if err != nil {
		return struct{}{}, err
	}
	n.what = "calls function " + n.name
	n.verdict.Asks = asks(oid < firstUserOID, n)
	n.volatile = volatility == "v"
	if oid < firstUserOID {
		n.unsteady = !steadyBuiltin(n.name, volatility)
		builtinFunction(n, n.volatile)
	} else {
		n.unsteady = volatility != "i"
		userFunction(n, n.volatile, extension)
	}
	g.add(nodeID{nodeFunction, oid}, n)
	return struct{}{}, nil
}

// builtinFunction judges a function that initdb made.
func builtinFunction(n *node, volatile bool) {
	prefixed := func(p string) bool { return strings.HasPrefix(n.name, p) }
	switch {
	case volatile && (slices.Contains(unsafeNames, n.name) || prefixed("binary_upgrade_") || n.name == "ts_rewrite"):
		n.judge(Unsafe, "calls "+n.name+", which may change the session")
		if callEffectKnown(n.name) {
			n.direct = &Verdict{Fitness: Writes, Why: "calls " + n.name, Found: true}
		}
	case slices.Contains(harmlessNames, n.name):
	case slices.Contains(localNames, n.name) || slices.ContainsFunc(localPrefixes, prefixed):
		// Some of these write as well; whoever only wants to know where it
		// runs learns the same from both.
		n.judge(Local, "calls "+n.name+", whose answer depends on the node")
		if volatile {
			n.judge(Writes, "calls volatile function "+n.name)
		}
	case volatile:
		n.judge(Writes, "calls volatile function "+n.name)
	}
}

// callEffectKnown says whether a call that is written in a statement shows by
// its name what it leaves behind.
func callEffectKnown(name string) bool {
	return name == "set_config" || name == "setseed" ||
		strings.HasPrefix(name, "pg_advisory_") || strings.HasPrefix(name, "pg_try_advisory_")
}

// userFunction judges a function that somebody created.
func userFunction(n *node, volatile bool, extension *string) {
	if extension != nil {
		switch {
		case slices.Contains(unsafeExtensionFunctions[*extension], n.name):
			n.judge(Unsafe, "calls "+n.name+", which runs SQL given as text")
			return
		case !volatile, slices.Contains(harmlessExtensionFunctions[*extension], n.name):
			return
		case slices.Contains(trustedExtensions, *extension):
			n.judge(Writes, "calls volatile function "+n.name)
			return
		}
	}
	switch {
	case ownFunction(n.schema, n.name):
		n.judge(Writes, "calls volatile function "+n.name)
	case volatile:
		n.judge(Unsafe, "calls volatile function "+n.name)
	}
}

// ownFunction reports whether a function is the proxy's own that anybody may call: it touches no table of the user's
// and leaves the session alone.
func ownFunction(schema, name string) bool { return schema == "shardproxy" && name == "unique_id" }

func (n *node) judge(f Fitness, why string) {
	n.verdict = Verdict{Fitness: f, Why: why, Found: true, Asks: n.verdict.Asks}
}

func (g *graph) operatorRow(r pgx.CollectableRow) (struct{}, error) {
	var oid, function uint32
	n := &node{verdict: Verdict{Found: true}}
	if err := r.Scan(&oid, &n.schema, &n.name, &function); err != nil {
		return struct{}{}, err
	}
	n.what = "uses operator " + n.name
	id := nodeID{nodeOperator, oid}
	n.uses = []nodeID{{nodeFunction, function}}
	g.nodes[id] = n
	if oid >= firstUserOID {
		g.userOperators = append(g.userOperators, id)
	}
	return struct{}{}, nil
}

func (g *graph) typeRow(r pgx.CollectableRow) (struct{}, error) {
	var oid uint32
	n := &node{verdict: Verdict{Found: true}}
	err := r.Scan(&oid, &n.schema, &n.name)
	n.what = "uses type " + n.name
	g.nodes[nodeID{nodeType, oid}] = n
	g.typesByName[n.name] = append(g.typesByName[n.name], nodeID{nodeType, oid})
	return struct{}{}, err
}

func (g *graph) relationRow(r pgx.CollectableRow) (struct{}, error) {
	var (
		oid                             uint32
		schema, name, kind, persistence string
	)
	if err := r.Scan(&oid, &schema, &name, &kind, &persistence); err != nil {
		return struct{}{}, err
	}
	read := &node{schema: schema, name: name, what: "reads " + name, verdict: Verdict{Found: true}, view: kind == "v"}
	switch {
	case persistence == "u":
		read.judge(Local, "reads unlogged relation "+name)
	case kind == "S":
		read.judge(Local, "reads sequence "+name)
	case kind == "f":
		read.judge(Local, "reads foreign table "+name)
	}
	write := &node{schema: schema, name: name, what: "writes to " + name, view: kind == "v"}
	write.judge(Writes, "writes to "+name)
	write.uses = []nodeID{{nodeRead, oid}}
	g.add(nodeID{nodeRead, oid}, read)
	g.add(nodeID{nodeWrite, oid}, write)
	return struct{}{}, nil
}

func (g *graph) edgeRow(r pgx.CollectableRow) (struct{}, error) {
	var (
		fromKind, toKind string
		from, to         uint32
	)
	if err := r.Scan(&fromKind, &from, &toKind, &to); err != nil {
		return struct{}{}, err
	}
	if n := g.nodes[nodeID{edgeKind(fromKind), from}]; n != nil {
		n.uses = append(n.uses, nodeID{edgeKind(toKind), to})
	}
	return struct{}{}, nil
}

func edgeKind(s string) nodeKind {
	switch s {
	case "f":
		return nodeFunction
	case "o":
		return nodeOperator
	case "w":
		return nodeWrite
	case "t":
		return nodeType
	}
	return nodeRead
}
