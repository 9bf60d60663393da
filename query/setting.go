package query

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// variableSet takes SET and RESET in all their forms.
func (b *builder) variableSet(n *pg.VariableSetStmt) {
	b.c.Kind, b.c.Effects = KindSet, EffectSetting
	name := strings.ToLower(n.Name)
	s := Setting{Name: name, Local: n.IsLocal || endsWithTransaction(name)}
	switch n.Kind {
	case pg.VariableSetKind_VAR_RESET_ALL:
		b.c.Kind = KindReset
		s = Setting{ResetAll: true}
	case pg.VariableSetKind_VAR_RESET:
		b.c.Kind = KindReset
		s.Default = true
	case pg.VariableSetKind_VAR_SET_DEFAULT:
		s.Default = true
	case pg.VariableSetKind_VAR_SET_MULTI:
		b.setTransaction(n)
		return
	case pg.VariableSetKind_VAR_SET_VALUE:
		s.Value = b.settingValue()
		if s.Value == "" {
			b.c.Effects |= EffectUnknown
		}
		if len(n.Args) == 1 {
			s.Literal, s.IsLiteral = setValueText(n.Args[0].GetAConst())
		}
		s.Flat, s.IsFlat = flatten(name, n.Args)
	default: // FROM CURRENT
		b.c.Effects |= EffectUnknown
		return
	}
	if name == "seed" {
		// The state of random() cannot be carried to another connection.
		b.c.Effects |= EffectUnknown
	}
	b.c.Settings = []Setting{s}
}

// setTransaction takes SET TRANSACTION and SET SESSION CHARACTERISTICS.
func (b *builder) setTransaction(n *pg.VariableSetStmt) {
	if n.Name != "SESSION CHARACTERISTICS" {
		b.c.Kind, b.c.Effects = KindSetTransaction, 0
		if n.Name == "TRANSACTION" {
			b.c.Tx = txModes(n.Args)
		}
		return
	}
	for _, a := range n.Args {
		d := a.GetDefElem()
		s := Setting{Name: "default_" + d.GetDefname(), Local: n.IsLocal}
		s.Literal, s.IsLiteral = constText(d.GetArg())
		if d.GetDefname() != "transaction_isolation" {
			s.Literal = onOff(s.Literal)
		}
		s.Value = "'" + s.Literal + "'"
		s.Flat, s.IsFlat = s.Literal, s.IsLiteral
		b.c.Settings = append(b.c.Settings, s)
	}
}

func onOff(v string) string {
	if v == "0" {
		return "off"
	}
	return "on"
}

// endsWithTransaction names the settings that never outlive their transaction.
func endsWithTransaction(name string) bool {
	switch name {
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable":
		return true
	}
	return false
}

// settingValue returns the client's text of the value in SET: what is right of
// TO or =, or of the words of a special syntax.
func (b *builder) settingValue() string {
	t := nextToken(b.src, nextToken(b.src, b.c.Start).end)
	if end, ok := b.assignment(t); ok {
		return b.from(end)
	}
	next := nextToken(b.src, t.end)
	if b.isWord(t, "local") || b.isWord(t, "session") && !b.isWord(next, "authorization") {
		t = next
		if end, ok := b.assignment(t); ok {
			return b.from(end)
		}
		next = nextToken(b.src, t.end)
	}
	switch {
	case b.isWord(t, "time"), b.isWord(t, "session"), b.isWord(t, "xml"):
		return b.from(next.end)
	case b.isWord(t, "names"), b.isWord(t, "schema"), b.isWord(t, "role"):
		return b.from(t.end)
	}
	return ""
}

// assignment returns the position after TO or = when a setting's name, maybe
// with points, begins at t and one of them follows.
func (b *builder) assignment(t token) (end int, ok bool) {
	for {
		t = nextToken(b.src, b.nameEnd(t))
		text := string(b.src[t.start:t.end])
		if t.kind == tokOp && text == "=" || b.isWord(t, "to") {
			return t.end, true
		}
		if t.kind != tokPunct || text != "." {
			return 0, false
		}
		t = nextToken(b.src, t.end)
	}
}

// from returns the command's text from the first token at or after pos.
func (b *builder) from(pos int) string {
	start := nextToken(b.src, pos).start
	if start >= b.c.End {
		return ""
	}
	return string(b.src[start:b.c.End])
}

// setValueText returns a constant as SET stores it.
func setValueText(c *pg.A_Const) (string, bool) {
	switch v := c.GetVal().(type) {
	case *pg.A_Const_Ival:
		return strconv.Itoa(int(v.Ival.GetIval())), true
	case *pg.A_Const_Fval:
		return v.Fval.GetFval(), true
	case *pg.A_Const_Sval:
		return v.Sval.GetSval(), true
	case *pg.A_Const_Boolval:
		return strconv.FormatBool(v.Boolval.GetBoolval()), true
	}
	return "", false
}

// flatten joins the constants of a SET as PostgreSQL does: separated by comma
// and space, each quoted as an identifier when the setting is a list of names.
func flatten(name string, args []*pg.Node) (string, bool) {
	var out strings.Builder
	for i, a := range args {
		c := a.GetAConst()
		text, ok := setValueText(c)
		if !ok {
			return "", false
		}
		if i > 0 {
			out.WriteString(", ")
		}
		if _, isString := c.Val.(*pg.A_Const_Sval); isString && listSetting(name) {
			text = quoteName(text)
		}
		out.WriteString(text)
	}
	return out.String(), len(args) > 0
}

// listSetting names the settings whose value is a list of quoted names.
func listSetting(name string) bool {
	switch name {
	case "search_path", "temp_tablespaces", "session_preload_libraries",
		"local_preload_libraries", "shared_preload_libraries":
		return true
	}
	return false
}

// QuoteName puts double quotes around a name.
func QuoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteName puts double quotes around a name unless it reads the same without.
func quoteName(s string) string {
	plain := s != "" && charClass[s[0]]&chDigit == 0
	for i := 0; i < len(s) && plain; i++ {
		c := s[i]
		plain = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_'
	}
	if plain {
		return s
	}
	return QuoteName(s)
}
