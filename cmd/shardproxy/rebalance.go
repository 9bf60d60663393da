package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"shardproxy/config"
	"shardproxy/shardmap"
)

func rebalanceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rebalance",
		Short: "Spread rows over the shards",
		Long:  "Rebalance moves slots, with their rows, from one shard to another while applications run.",
		Args:  cobra.NoArgs,
	}
	c.AddCommand(rebalancePlanCommand(), rebalanceStartCommand(), rebalanceStatusCommand(), rebalanceWatchCommand(), rebalanceHistoryCommand(),
		rebalanceAbortCommand(), rebalanceCompleteCommand(), rebalanceRollbackCommand(), rebalanceForgetCommand(), rebalancePauseCommand(), rebalanceResumeCommand())
	return c
}

// sizeFlag is a number of bytes as a flag.
type sizeFlag int64

// String returns the size in the biggest unit that divides it.
func (f *sizeFlag) String() string { return config.Size(*f).String() }

// Set reads a size; a rate may have /s behind it.
func (f *sizeFlag) Set(s string) error {
	n, err := config.ParseSize(strings.TrimSuffix(s, "/s"))
	if err != nil {
		return fmt.Errorf("%q %w", s, err)
	}
	*f = sizeFlag(n)
	return nil
}

// Type names the flag's values in the help.
func (f *sizeFlag) Type() string { return "size" }

// percentFlag is a part as a flag: 5% is 0.05.
type percentFlag float64

// String returns the part in percent.
func (f *percentFlag) String() string { return strconv.FormatFloat(float64(*f)*100, 'f', -1, 64) + "%" }

// Set reads percent.
func (f *percentFlag) Set(s string) error {
	n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(s, "%")), 64)
	if err != nil || math.IsNaN(n) || n < 0 || n >= 100 {
		return fmt.Errorf("%q is not from 0%% to less than 100%%", s)
	}
	*f = percentFlag(n / 100)
	return nil
}

// Type names the flag's values in the help.
func (f *percentFlag) Type() string { return "percent" }

// parseSlots reads 17,18,100-120. n is how many there are.
func parseSlots(text string, n int) (all []shardmap.Slot, err error) {
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 32)
		b, err2 := strconv.ParseUint(to, 10, 32)
		switch {
		case err != nil || err2 != nil || a > b:
			return nil, fmt.Errorf("--slots: %q is neither a slot nor a range of slots, such as 17 or 100-120", part)
		case b >= uint64(n):
			return nil, fmt.Errorf("--slots: there is no slot %d: they are 0 to %d", b, n-1)
		}
		for ; a <= b; a++ {
			all = append(all, shardmap.Slot(a))
		}
	}
	return all, nil
}

// parseShard reads s4=host:port[,host:port]...
func parseShard(text string) (s config.Shard, err error) {
	name, nodes, ok := strings.Cut(text, "=")
	s.Name = strings.TrimSpace(name)
	for node := range strings.SplitSeq(nodes, ",") {
		if node = strings.TrimSpace(node); node != "" {
			s.Nodes = append(s.Nodes, node)
		}
	}
	if !ok || s.Name == "" || len(s.Nodes) == 0 {
		return s, fmt.Errorf("--add %q: want a name and where its nodes are, such as s4=10.0.4.1:5432", text)
	}
	return s, nil
}

// parseWeight reads s1=2.
func parseWeight(text string) (name string, weight int, err error) {
	name, of, ok := strings.Cut(text, "=")
	weight, err = strconv.Atoi(of)
	if !ok || name == "" || err != nil || weight < 1 {
		return "", 0, fmt.Errorf("--weight %q: want a shard and a whole number above 0, such as s1=2", text)
	}
	return name, weight, nil
}

// tenant is one value of a table's key.
type tenant struct {
	text                  string // as it was given
	schema, table, column string // schema is "" when it was not given
	value                 string
}

// parseTenant reads [schema.]table.column=value; names are as SQL has them.
func parseTenant(text string) (*tenant, error) {
	names, rest, err := parseNames(text)
	value, ok := strings.CutPrefix(rest, "=")
	switch {
	case err != nil:
	case !ok || len(names) < 2 || len(names) > 3:
		err = errors.New("want a table, the column of its key and a value, such as orders.customer_id=42")
	}
	if err != nil {
		return nil, fmt.Errorf("--move-tenant %q: %w", text, err)
	}
	t := &tenant{text: text, table: names[len(names)-2], column: names[len(names)-1], value: value}
	if len(names) == 3 {
		t.schema = names[0]
	}
	return t, nil
}

// parseNames reads names with points between them, folded and without quotes, up to what is neither.
func parseNames(text string) (names []string, rest string, err error) {
	for {
		var name strings.Builder
		if quoted, is := strings.CutPrefix(text, `"`); is {
			for {
				part, behind, closed := strings.Cut(quoted, `"`)
				name.WriteString(part)
				if !closed {
					return nil, "", errors.New("a quoted name has no end")
				}
				if quoted, is = strings.CutPrefix(behind, `"`); !is {
					text = behind
					break
				}
				name.WriteByte('"')
			}
		} else {
			end := strings.IndexAny(text, ".=")
			if end < 0 {
				end = len(text)
			}
			name.WriteString(strings.ToLower(text[:end]))
			text = text[end:]
		}
		if name.Len() == 0 {
			return nil, "", errors.New("a name is missing")
		}
		names = append(names, name.String())
		behind, more := strings.CutPrefix(text, ".")
		if !more {
			return names, text, nil
		}
		text = behind
	}
}

// find returns the tables whose rows the tenant's name stands for: one, or the partitions of one.
func (t *tenant) find(tables []*slottedTable) (*slottedTable, error) {
	var found []*slottedTable
	for _, s := range tables {
		of := s.of.Table
		for _, name := range [][2]string{{of.Schema, of.Name}, s.root()} {
			if name[1] == t.table && (t.schema == "" || name[0] == t.schema) {
				found = append(found, s)
				break
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("--move-tenant %s: there is no table %s that is sharded by hash", t.text, t.table)
	}
	one := found[0]
	for _, s := range found[1:] {
		if s.root() != one.root() {
			return nil, fmt.Errorf("--move-tenant %s: there are several tables %s: name the schema", t.text, t.table)
		}
	}
	if len(one.of.Key) != 1 || one.of.Key[0] != t.column {
		return nil, fmt.Errorf("--move-tenant %s: the key of %s is (%s); name slots with --slots instead, if it is not one column", t.text, t.table, strings.Join(one.of.Key, ", "))
	}
	if one.table == nil {
		return nil, fmt.Errorf("--move-tenant %s: its slot cannot be told: %w", t.text, one.blocker)
	}
	return one, nil
}
