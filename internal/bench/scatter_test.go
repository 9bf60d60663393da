package main

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"shardproxy/wire"
)

// answering returns a client whose server answers each query with so many rows.
func answering(t *testing.T, rows int) *client {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close() })
	var answer []byte
	for range rows {
		answer = wire.AppendFrame(answer, wire.MsgDataRow, []byte("a row"))
	}
	answer = wire.AppendCommandComplete(answer, fmt.Sprintf("SELECT %d", rows))
	answer = wire.AppendReadyForQuery(answer, 'I')
	go func() {
		for asked := make([]byte, 1000); ; {
			if _, err := far.Read(asked); err != nil {
				return
			}
			if _, err := far.Write(answer); err != nil {
				return
			}
		}
	}()
	return &client{conn: near, readSize: 64}
}

// The rows of several servers are counted together, and the first is that of whichever has some.
func TestScatterReader(t *testing.T) {
	for _, rows := range [][]int{{5}, {3, 2}, {0, 5}} {
		var r scatterReader
		for _, n := range rows {
			r = append(r, answering(t, n))
		}
		for range 2 {
			if first, err := r.read("SELECT", 5); err != nil || first <= 0 {
				t.Errorf("%d rows: the first came after %v, %v", rows, first, err)
			}
		}
		if _, err := r.read("SELECT", 6); err == nil || !strings.Contains(err.Error(), "5 rows, not 6") {
			t.Errorf("a row is missing, and that is %v", err)
		}
	}
}

// Every side has each statement, but for that which reads the shards one by one: it has those that can be read so.
func TestScatterTable(t *testing.T) {
	m := &measurement{scatter: rounds{}}
	for _, ms := range []float64{10, 30} {
		m.scatter.add("all rows", oneByOneName, "ms", ms)
		m.scatter.add("all rows", shardsName, "ms", 2*ms)
	}
	text := m.scatterTable().markdown()
	if got := strings.Count(text, oneByOneName); got != 4 {
		t.Errorf("%d statements are read one by one:\n%s", got, text)
	}
	if !strings.Contains(text, "2.00 (2.00-2.00)") {
		t.Errorf("the ratio is not that of each round:\n%s", text)
	}
}
