package query

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// builder fills in one command from its tree and its text.
type builder struct {
	src []byte
	c   *Command
}

// take visits m and moves all that was found into the command. Settings, the
// kind and the spans are left alone.
func (b *builder) take(m ...proto.Message) {
	var w walker
	for _, msg := range m {
		w.visit(msg)
	}
	b.c.Functions, b.c.Operators = w.functions.sorted(), w.operators.sorted()
	b.c.Relations, b.c.Writes, b.c.Types = w.relations.sorted(), w.writes.sorted(), w.types.sorted()
	b.c.Attributes, b.c.SettingsRead = sortedKeys(w.attributes), sortedKeys(w.settings)
	b.c.Effects |= w.effects
	b.c.Reads = !w.writing
}

func sortedKeys(m map[string]struct{}) []string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// command classifies one statement.
func (b *builder) command(m proto.Message) {
	switch n := m.(type) {
	case *pg.SelectStmt:
		b.selectCommand(n)
	case *pg.InsertStmt, *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt:
		b.take(m)
		b.c.Kind = KindDML
	case *pg.ExplainStmt:
		b.explain(n)
	case *pg.CopyStmt:
		b.copy(n)
	case *pg.PrepareStmt:
		b.prepare(n)
	case *pg.ExecuteStmt:
		b.take(m)
		b.c.Kind, b.c.Reads = KindExecute, false
		b.nameAfterVerb(n.Name)
	case *pg.DeclareCursorStmt:
		b.declare(n)
	case *pg.TransactionStmt:
		b.transaction(n)
	case *pg.VariableSetStmt:
		b.variableSet(n)
	default:
		if !b.session(m) {
			b.other(m)
		}
	}
}

// selectCommand takes SELECT, VALUES and TABLE, and tells SELECT INTO and
// set_config calls apart.
func (b *builder) selectCommand(n *pg.SelectStmt) {
	b.take(n)
	b.c.Kind = KindSelect
	if hasInto(n) {
		b.c.Kind = KindDDL
		if b.c.Effects&EffectTemp == 0 {
			b.c.Effects |= EffectCatalog
		}
		return
	}
	settings, ok := b.configCalls(n)
	if !ok {
		return
	}
	var values walker
	for _, t := range n.TargetList {
		values.visit(message(t.GetResTarget().GetVal().GetFuncCall().Args[1]))
	}
	b.c.Effects = values.effects | EffectSetting
	b.c.Settings = settings
}

// hasInto finds INTO, which stands in the leftmost arm of a set operation.
func hasInto(n *pg.SelectStmt) bool {
	for ; n != nil; n = n.Larg {
		if n.IntoClause != nil {
			return true
		}
	}
	return false
}

// explain takes EXPLAIN: without ANALYZE the inner command is only planned.
func (b *builder) explain(n *pg.ExplainStmt) {
	inner := message(n.Query)
	b.take(inner)
	b.c.Kind = KindExplain
	switch inner.(type) {
	case *pg.SelectStmt, *pg.InsertStmt, *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt:
	case *pg.CreateTableAsStmt, *pg.RefreshMatViewStmt, *pg.DeclareCursorStmt:
		b.c.Reads = false
	default: // EXPLAIN EXECUTE
		b.c.Kind, b.c.Reads = KindOther, false
		b.c.Effects |= EffectUnknown
		return
	}
	if analyzes(n.Options) {
		if _, ok := inner.(*pg.CreateTableAsStmt); ok {
			b.c.Effects |= EffectCatalog
		}
		return
	}
	switch inner.(type) {
	case *pg.SelectStmt, *pg.InsertStmt, *pg.UpdateStmt, *pg.DeleteStmt, *pg.MergeStmt:
		b.c.Reads = b.c.Effects&EffectTemp == 0
	}
	// Planning calls nothing that is volatile.
	b.c.Effects &= EffectTemp | EffectPreparedRead
	b.c.Functions, b.c.Operators, b.c.Types, b.c.Writes, b.c.Attributes = nil, nil, nil, nil, nil
}

// analyzes says whether the options ask for ANALYZE; anything but a plain "no"
// counts as yes.
func analyzes(options []*pg.Node) bool {
	for _, o := range options {
		d := o.GetDefElem()
		if d.GetDefname() == "analyze" && !falseOption(d.GetArg()) {
			return true
		}
	}
	return false
}

// falseOption reads the value of a boolean option.
func falseOption(n *pg.Node) bool {
	switch v := message(n).(type) {
	case *pg.Boolean:
		return !v.Boolval
	case *pg.Integer:
		return v.Ival == 0
	case *pg.String:
		value, ok := parseBool(v.Sval)
		return ok && !value && len(v.Sval) > 2
	}
	return false
}

// copy takes COPY. Only the client's own stream is a kind; files and programs
// belong to the server and may do anything.
func (b *builder) copy(n *pg.CopyStmt) {
	if n.IsFrom {
		var where proto.Message
		if n.WhereClause != nil {
			where = message(n.WhereClause)
		}
		b.take(where)
		b.c.Kind, b.c.Reads = KindCopyFrom, false
		if n.Relation != nil {
			var w walker
			w.target(n.Relation)
			b.c.Effects |= w.effects
			b.c.Writes = w.writes.sorted()
			b.c.Relations = append(b.c.Relations, w.relations.sorted()...)
		}
	} else {
		b.take(n)
		b.c.Kind = KindCopyTo
	}
	if n.Filename != "" || n.IsProgram {
		b.c.Kind, b.c.Reads = KindOther, false
	}
}

// prepare takes PREPARE name (types) AS body.
func (b *builder) prepare(n *pg.PrepareStmt) {
	parts := []proto.Message{message(n.Query)}
	for _, t := range n.Argtypes {
		parts = append(parts, message(t))
	}
	b.take(parts...)
	b.c.Kind = KindPrepare
	b.c.Effects |= EffectPrepared
	pos := b.nameAfterVerb(n.Name)
	level := 0
	for t := nextToken(b.src, pos); t.kind != tokEnd && t.end <= b.c.End; t = nextToken(b.src, t.end) {
		switch {
		case t.kind == tokOpen:
			level++
			if level == 1 {
				b.c.ParamTypesStart = t.end
			}
		case t.kind == tokClose:
			level--
			if level == 0 {
				b.c.ParamTypesEnd = t.start
			}
		case level == 0 && b.isWord(t, "as"):
			b.c.BodyStart, b.c.BodyEnd = nextToken(b.src, t.end).start, b.c.End
			return
		}
	}
}

// declare takes DECLARE CURSOR.
func (b *builder) declare(n *pg.DeclareCursorStmt) {
	const optionHold = 0x0020 // CURSOR_OPT_HOLD in parsenodes.h
	b.take(message(n.Query))
	b.c.Kind = KindDeclare
	if n.Options&optionHold != 0 {
		b.c.Effects |= EffectHoldCursor
	}
	b.nameAfterVerb(n.Portalname)
}

// other takes everything a session has no special interest in.
func (b *builder) other(m proto.Message) {
	switch n := m.(type) {
	case *pg.CreateTableAsStmt:
		b.createTableAs(n)
		return
	case *pg.TruncateStmt:
		b.take(n)
		b.c.Writes = b.c.Relations
	case *pg.DoStmt, *pg.CallStmt, *pg.LoadStmt:
		b.take(m)
		b.c.Effects |= EffectUnknown
	case *pg.LockStmt, *pg.ConstraintsSetStmt, *pg.VacuumStmt, *pg.ClusterStmt, *pg.ReindexStmt,
		*pg.CheckPointStmt, *pg.RefreshMatViewStmt, *pg.AlterSystemStmt, *pg.AlterDatabaseRefreshCollStmt:
		b.take(m)
		_, b.c.Locks = m.(*pg.LockStmt)
	default:
		b.ddl(m)
		return
	}
	b.c.Kind, b.c.Reads = KindOther, false
}

func (b *builder) createTableAs(n *pg.CreateTableAsStmt) {
	b.take(n)
	b.c.Kind, b.c.Reads = KindDDL, false
	if b.c.Effects&EffectTemp == 0 {
		b.c.Effects |= EffectCatalog
	}
	if _, ok := message(n.Query).(*pg.ExecuteStmt); ok {
		b.c.Kind = KindOther
		b.c.Effects |= EffectUnknown
	}
}
