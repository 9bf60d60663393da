package proxy

import (
	"slices"
	"strconv"
	"strings"
)

// A plan in JSON, YAML or XML is one document. Those of several servers are made one by their lines, which PostgreSQL
// always writes in the same way (ExplainOpenGroup and ExplainProperty in explain.c): what a server says of its plan
// is indented anew and else left as it is, so that what its version knows, and others do not, is there too. Values have
// no line breaks in JSON and YAML. In XML they may, and no line of a plan is touched; but a "<" is always a tag's.

// planFormat is a format of EXPLAIN other than text: "json", "yaml" or "xml".
type planFormat string

// The formats, with their lines around a plan and what stands beside it.
const (
	planJSON planFormat = "json"
	planYAML planFormat = "yaml"
	planXML  planFormat = "xml"

	xmlHead = `<explain xmlns="http://www.postgresql.org/2009/explain">`
	xmlEnd  = "</explain>"
)

// oid is the type of the column that has the document, as in ExplainResultDesc.
func (f planFormat) oid() uint32 {
	switch f {
	case planJSON:
		return 114
	case planXML:
		return 142
	}
	return textOID
}

// serverPlan is what a server says of one statement, as lines: the properties of its plan, and what stands beside the plan.
type serverPlan struct{ plan, beside []string }

// read takes a server's document apart; not ok when it is not of one statement, or not as expected.
func (f planFormat) read(document string) (d serverPlan, ok bool) {
	var head, tail []string
	ends, indent := "", 4
	switch f {
	case planJSON:
		head, tail, ends = []string{"[", "  {", `    "Plan": {`}, []string{"  }", "]"}, "    }"
	case planXML:
		head, tail, ends = []string{xmlHead, "  <Query>", "    <Plan>"}, []string{"  </Query>", xmlEnd}, "    </Plan>"
	case planYAML:
		head, indent = []string{"- Plan: "}, 2
	}
	lines := strings.Split(document, "\n")
	if len(lines) < len(head)+len(tail) || !slices.Equal(lines[:len(head)], head) || !slices.Equal(lines[len(lines)-len(tail):], tail) {
		return d, false
	}
	lines = lines[len(head) : len(lines)-len(tail)]
	at := slices.IndexFunc(lines, func(l string) bool {
		return ends != "" && (l == ends || l == ends+",") || f == planYAML && !strings.HasPrefix(l, "    ")
	})
	switch {
	case at < 0 && f == planYAML:
		d.plan = lines
	case at < 0:
		return d, false
	case f == planYAML:
		d.plan, d.beside = lines[:at], lines[at:]
	default:
		d.plan, d.beside = lines[:at], lines[at+1:]
	}
	if f == planXML {
		return d, len(d.plan) > 0 && !slices.Contains(d.beside, head[1])
	}
	return d, len(d.plan) > 0 && cutIndent(d.plan, indent+2) && cutIndent(d.beside, indent)
}

// cutIndent takes blanks from the beginning of lines; false when one has not as many.
func cutIndent(lines []string, blanks int) bool {
	by := strings.Repeat(" ", blanks)
	for i, l := range lines {
		rest, ok := strings.CutPrefix(l, by)
		if !ok {
			return false
		}
		lines[i] = rest
	}
	return true
}

// number returns a number among lines of properties, as it is written.
func (f planFormat) number(lines []string, name string) (string, bool) {
	before, after := `"`+name+`": `, ","
	switch f {
	case planYAML:
		before, after = name+": ", ""
	case planXML:
		tag := xmlTag(name)
		before, after = "<"+tag+">", "</"+tag+">"
	}
	for _, l := range lines {
		if f == planXML { // all properties of the plan are as deep as the first
			l = strings.TrimPrefix(l, lines[0][:len(lines[0])-len(strings.TrimLeft(lines[0], " "))])
		}
		if value, ok := strings.CutPrefix(l, before); ok {
			return strings.TrimSuffix(value, after), true
		}
	}
	return "", false
}

// sum adds numbers up, with as many decimals as the first has; not ok when one is none.
func sum(numbers []string) (string, bool) {
	total, decimals := 0.0, 0
	for i, n := range numbers {
		v, err := strconv.ParseFloat(n, 64)
		if err != nil {
			return "", false
		}
		if _, fraction, ok := strings.Cut(n, "."); ok && i == 0 {
			decimals = len(fraction)
		}
		total += v
	}
	return strconv.FormatFloat(total, 'f', decimals, 64), len(numbers) > 0
}

// planEntry is one property, or several, as lines; of a list one item.
type planEntry []string

// scalar is a number or the like.
func (f planFormat) scalar(name, value string) planEntry {
	switch f {
	case planJSON:
		return planEntry{`"` + name + `": ` + value}
	case planXML:
		return planEntry{"<" + xmlTag(name) + ">" + value + "</" + xmlTag(name) + ">"}
	}
	return planEntry{name + ": " + value}
}

func (f planFormat) text(name, value string) planEntry { return f.scalar(name, f.quote(value)) }

// texts is a list of values.
func (f planFormat) texts(name string, values []string) planEntry {
	items := make([]planEntry, len(values))
	for i, v := range values {
		items[i] = planEntry{f.quote(v)}
		if f == planXML {
			items[i] = f.text("Item", v)
		}
	}
	return f.list(name, items)
}

// spliced are lines of a server.
func (f planFormat) spliced(lines []string) planEntry {
	if f == planXML {
		return planEntry{strings.TrimLeft(strings.Join(lines, "\n"), " ")}
	}
	return lines
}

// object is a group of properties; without a name it is an item of a list.
func (f planFormat) object(name string, in ...planEntry) planEntry {
	switch f {
	case planJSON:
		open := "{"
		if name != "" {
			open = `"` + name + `": {`
		}
		return f.around(open, in, "}")
	case planXML:
		return f.around("<"+name+">", in, "</"+name+">")
	}
	if name == "" {
		return slices.Concat(in...)
	}
	return f.around(name+": ", in, "")
}

// list is a list of items.
func (f planFormat) list(name string, items []planEntry) planEntry {
	switch f {
	case planJSON:
		return f.around(`"`+name+`": [`, items, "]")
	case planXML:
		return f.around("<"+xmlTag(name)+">", items, "</"+xmlTag(name)+">")
	}
	var dashed []planEntry
	for _, item := range items {
		dashed = append(dashed, dash(item))
	}
	return f.around(name+": ", dashed, "")
}

// dash makes lines an item of a list in YAML.
func dash(item planEntry) planEntry {
	out := planEntry{"- " + item[0]}
	for _, l := range item[1:] {
		out = append(out, "  "+l)
	}
	return out
}

// around puts entries between two lines; there is no second one when it is "".
func (f planFormat) around(open string, in []planEntry, end string) planEntry {
	out := planEntry{open}
	for i, entry := range in {
		for j, l := range entry {
			if f == planJSON && i < len(in)-1 && j == len(entry)-1 {
				l += ","
			}
			out = append(out, "  "+l)
		}
	}
	if end != "" {
		out = append(out, end)
	}
	return out
}

// document is the whole, with one statement's properties.
func (f planFormat) document(in ...planEntry) string {
	var all planEntry
	switch f {
	case planJSON:
		all = f.around("[", []planEntry{f.object("", in...)}, "]")
	case planXML:
		all = f.around(xmlHead, []planEntry{f.object("Query", in...)}, xmlEnd)
	default:
		all = dash(f.object("", in...))
	}
	return strings.Join(all, "\n")
}

// xmlTag is the name of a property as a tag.
func xmlTag(name string) string { return strings.ReplaceAll(name, " ", "-") }

// quote writes a value as escape_json, escape_yaml and escape_xml do.
func (f planFormat) quote(value string) string {
	if f == planXML {
		return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#x0d;").Replace(value)
	}
	out := []byte{'"'}
	for i := range len(value) {
		switch b := value[i]; {
		case b == '\b':
			out = append(out, `\b`...)
		case b == '\f':
			out = append(out, `\f`...)
		case b == '\n':
			out = append(out, `\n`...)
		case b == '\r':
			out = append(out, `\r`...)
		case b == '\t':
			out = append(out, `\t`...)
		case b == '"', b == '\\':
			out = append(out, '\\', b)
		case b < ' ':
			out = append(out, `\u00`...)
			out = append(out, "0123456789abcdef"[b>>4], "0123456789abcdef"[b&15])
		default:
			out = append(out, b)
		}
	}
	return string(append(out, '"'))
}
