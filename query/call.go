package query

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// call notes a function call and what its name alone says about its effects.
func (w *walker) call(n *pg.FuncCall) {
	name := qualified(n.Funcname, callArgs(n))
	w.functions.add(name)
	if effect := functionEffect(name.Name); effect != 0 {
		w.effects |= effect
		w.writing = true
	}
	switch name.Name {
	case "pg_notify":
		w.writing = true
	case "current_setting":
		w.settingRead(n)
	}
}

// callArgs returns the number of arguments, -1 when they do not say which
// function is meant (VARIADIC, WITHIN GROUP).
func callArgs(n *pg.FuncCall) int {
	if n.FuncVariadic || n.AggWithinGroup {
		return -1
	}
	return len(n.Args)
}

// functionEffect returns what a function of PostgreSQL's own leaves behind in
// its session. The schema does not matter: a function of that name elsewhere
// is treated alike.
func functionEffect(name string) Effect {
	switch name {
	case "nextval", "setval":
		return EffectSequenceWrite
	case "currval", "lastval":
		return EffectSequenceRead
	case "pg_prepared_statement":
		return EffectPreparedRead
	case "set_config", "setseed":
		return EffectUnknown
	case "pg_advisory_lock", "pg_advisory_lock_shared",
		"pg_try_advisory_lock", "pg_try_advisory_lock_shared",
		"pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all":
		return EffectAdvisory
	}
	return 0
}

// settingRead notes the name given to current_setting.
func (w *walker) settingRead(n *pg.FuncCall) {
	name := ""
	if len(n.Args) > 0 {
		if s, ok := stringConst(n.Args[0]); ok {
			name = strings.ToLower(s)
		}
	}
	if w.settings == nil {
		w.settings = make(map[string]struct{})
	}
	w.settings[name] = struct{}{}
}

// configCalls reads a SELECT that consists of nothing but set_config calls.
// ok is false when it is anything else or an argument is not constant enough
// to know what is set and for how long.
func (b *builder) configCalls(s *pg.SelectStmt) (settings []Setting, ok bool) {
	bare := len(s.TargetList) > 0 && len(s.FromClause) == 0 && s.WhereClause == nil &&
		s.WithClause == nil && s.Larg == nil && s.Rarg == nil && len(s.ValuesLists) == 0 &&
		len(s.GroupClause) == 0 && s.HavingClause == nil && len(s.WindowClause) == 0 &&
		len(s.SortClause) == 0 && s.LimitCount == nil && s.LimitOffset == nil &&
		s.IntoClause == nil && len(s.LockingClause) == 0 && len(s.DistinctClause) == 0
	if !bare {
		return nil, false
	}
	for _, t := range s.TargetList {
		call := t.GetResTarget().GetVal().GetFuncCall()
		if call == nil {
			return nil, false
		}
		setting, ok := b.configCall(call)
		if !ok {
			return nil, false
		}
		settings = append(settings, setting)
	}
	return settings, true
}

// configCall reads one set_config(name, value, is_local).
func (b *builder) configCall(n *pg.FuncCall) (Setting, bool) {
	fn := qualified(n.Funcname, 0)
	plain := n.AggFilter == nil && n.Over == nil && len(n.AggOrder) == 0 &&
		!n.AggDistinct && !n.FuncVariadic && !n.AggWithinGroup
	if fn.Name != "set_config" || fn.Schema != "" && fn.Schema != "pg_catalog" || len(n.Args) != 3 || !plain {
		return Setting{}, false
	}
	name, ok := stringConst(n.Args[0])
	if !ok {
		return Setting{}, false
	}
	local, ok := boolConst(n.Args[2])
	if !ok {
		return Setting{}, false
	}
	s := Setting{Name: strings.ToLower(name), Local: local || endsWithTransaction(strings.ToLower(name))}
	arg := n.Args[1]
	if arg.GetAConst().GetIsnull() {
		s.Default = true
		return s, true
	}
	s.Literal, s.IsLiteral = stringConst(arg)
	s.Flat, s.IsFlat = s.Literal, s.IsLiteral
	if start, end, ok := b.argumentSpan(n, 1); ok {
		s.Value = string(b.src[start:end])
	}
	if s.Value == "" || !s.IsLiteral && !s.Local {
		return Setting{}, false
	}
	return s, true
}

// argumentSpan finds the i-th argument of a call by counting commas in the
// text. It fails where names or other decorations stand in front of arguments.
func (b *builder) argumentSpan(n *pg.FuncCall, i int) (start, end int, ok bool) {
	level, index := 0, 0
	start = -1
	for t := nextToken(b.src, int(n.Location)); t.kind != tokEnd && t.end <= b.c.End; t = nextToken(b.src, t.end) {
		switch {
		case t.kind == tokOpen:
			level++
			if level == 1 {
				continue
			}
		case t.kind == tokClose:
			level--
			if level == 0 {
				return start, end, start >= 0
			}
		case t.kind == tokComma && level == 1:
			if index == i {
				return start, end, start >= 0
			}
			index++
			continue
		}
		if level > 0 && index == i {
			if start < 0 {
				start = t.start
			}
			end = t.end
		}
	}
	return 0, 0, false
}

// stringConst returns the value of a plain string constant, also one with a
// cast to text in front or behind.
func stringConst(n *pg.Node) (string, bool) {
	if c := n.GetAConst(); c != nil {
		if s, ok := c.Val.(*pg.A_Const_Sval); ok {
			return s.Sval.GetSval(), true
		}
	}
	if cast := n.GetTypeCast(); cast != nil && len(cast.GetTypeName().GetArrayBounds()) == 0 {
		t := qualified(cast.GetTypeName().GetNames(), 0)
		if t.Name == "text" && (t.Schema == "" || t.Schema == "pg_catalog") {
			if cast.GetArg().GetTypeCast() == nil {
				return stringConst(cast.GetArg())
			}
		}
	}
	return "", false
}

// boolConst returns the value of true, false, or a string that PostgreSQL
// reads as one of them.
func boolConst(n *pg.Node) (value, ok bool) {
	c := n.GetAConst()
	if c == nil {
		return false, false
	}
	switch v := c.Val.(type) {
	case *pg.A_Const_Boolval:
		return v.Boolval.GetBoolval(), true
	case *pg.A_Const_Sval:
		return parseBool(v.Sval.GetSval())
	}
	return false, false
}

// parseBool reads a boolean as PostgreSQL's input function does.
func parseBool(s string) (value, ok bool) {
	s = strings.ToLower(strings.Trim(s, " \t\n\r\f\v"))
	switch {
	case s == "":
		return false, false
	case strings.HasPrefix("true", s), strings.HasPrefix("yes", s), s == "on", s == "1":
		return true, true
	case strings.HasPrefix("false", s), strings.HasPrefix("no", s), s == "of", s == "off", s == "0":
		return false, true
	}
	return false, false
}
