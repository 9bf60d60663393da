package proxy

import (
	"fmt"
	"strings"

	"shardproxy/wire"
)

// Of gathered rows a server knows how many there are, and nothing else: of a join over three columns, which finds a partner for
// each row, it expects none, and joins what comes of it with the next thousands in a nested loop. So where much is joined, the query is
// finished without nested loops as far as there is another way: what a hash join takes too much is bounded, for all rows are in memory.

// pairsMax is how many pairs of rows a nested loop may look at: some milliseconds.
const pairsMax = 100_000

// joinsMuch reports whether two of the inputs have so many rows that a nested loop would take long. All that
// the server reads are inputs: there are no indexes that a nested loop could use.
func (c *scattering) joinsMuch(inputs []gathered) bool {
	if strings.Contains(strings.ToLower(c.text), "setting") {
		return false // it may ask for this one
	}
	most, next := 0, 0
	for i := range inputs {
		if n := inputs[i].arrays.Rows(); n > most {
			most, next = n, most
		} else {
			next = max(next, n)
		}
	}
	return most*next > pairsMax
}

// withoutLoops has the server that finishes the query do without nested loops, in this transaction. back has it do
// again as before; in a transaction of the query's own there is no need to.
func (c *scattering) withoutLoops() (back func()) {
	// A plan that has a nested loop nevertheless costs so much that it would be compiled.
	set := "SET LOCAL enable_nestloop = off; SET LOCAL jit = off"
	if c.own {
		c.ask(wire.AppendQuery(nil, set))
		return func() {}
	}
	a := c.ask(wire.AppendQuery(nil, "SELECT pg_catalog.current_setting('enable_nestloop'), pg_catalog.current_setting('jit'); "+set))
	if c.err != nil {
		return nil
	}
	_, rows, _ := cutRows(a.Frames)
	if len(rows) != 1 {
		c.fail(wire.Errorf("XX000", "a server does not tell its settings"), nil, -1)
		return nil
	}
	was := rowFields(rows[0][5:])
	restore := fmt.Sprintf("SET LOCAL enable_nestloop = %s; SET LOCAL jit = %s", was[0], was[1])
	return func() {
		if c.err == nil {
			c.ask(wire.AppendQuery(nil, restore))
		}
	}
}
