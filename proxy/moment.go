package proxy

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// The parts of a transaction on several shards begin at different times. What stands for
// the time of the transaction in a statement on several of them is that of one part, once
// and for all: see router.Plan.Moment. The texts are made before the transaction is begun on
// every shard, with a mark in its place that has the length of a time and that nobody can guess.

// momentSQL asks for the time of the transaction, in a form that every DateStyle reads.
const momentSQL = `SELECT pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.now()), 'YYYY-MM-DD HH24:MI:SS.US+00')`

// momentSize is the length of what momentSQL gives.
const momentSize = len("2006-01-02 15:04:05.000000+00")

// newMomentMark returns a mark.
func newMomentMark() string {
	var b [momentSize/2 + 1]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])[:momentSize]
}

// markMoment has the texts that are made next hold the mark.
func (s *session) markMoment(r *allRequest) {
	s.values.Moment = s.server.momentMark
	r.moment = true
}

// rewritten is the request of a plan with another text, nil for its own, and the mark in that if it has one; bind and tail as for spreadOver.
func (s *session) rewritten(p *router.Plan, text, bind, tail []byte) []byte {
	if text == nil {
		text = s.values.Text
	}
	part := router.Part{Types: s.values.Types, Bind: bind, Text: text}
	switch {
	case s.values.Moment != "" && p != nil && p.Fills():
		part.Text = p.Filled(s.values.Moment)
	case s.values.Moment != "":
		part.Text, _ = query.ReplaceMoment(nil, text, s.values.Moment)
	}
	return partFrames(&part, bind != nil, tail)
}

// putMoment puts the time of the transaction in place of the marks.
func (s *session) putMoment(frames [][]byte) *wire.Error {
	if s.spread.moment == "" {
		a, err := s.runOn(s.lease, wire.AppendQuery(nil, momentSQL), answerMax)
		if err != nil {
			return s.allFailed(s.lease, a, err)
		}
		_, rows, _ := cutRows(a.Frames)
		if len(rows) != 1 || len(rows[0]) != 5+2+4+momentSize {
			return wire.Errorf("XX000", "a server does not tell the time of the transaction").WithDetail("Node %s.", s.lease.Address())
		}
		s.spread.moment = string(rows[0][5+2+4:])
	}
	mark := []byte(s.server.momentMark)
	for _, b := range frames {
		for at := bytes.Index(b, mark); at >= 0; at = bytes.Index(b, mark) {
			copy(b[at:], s.spread.moment)
		}
	}
	return nil
}
