package proxy

import (
	"bytes"
	"encoding/binary"
	"slices"

	"shardproxy/router"
)

// What scan notes of portals, as it looks ahead over a request.

// queriesAhead notes a simple query, which ends the unnamed portal.
func (s *session) queriesAhead(n *need, p *router.Plan) {
	s.closes("")
	s.placeCursor(n, p)
	n.pieces = s.names(p) || n.all && declares(p)
}

// bindsAhead notes a Bind. It reports whether what it binds runs on several shards.
func (s *session) bindsAhead(n *need, p *router.Plan, portal []byte) (scatters bool) {
	s.placeCursor(n, p)
	scatters = n.all && p != nil && p.Scatters()
	n.pieces = n.pieces || s.names(p) || scatters && (len(portal) > 0 || declares(p))
	return scatters
}

// boundHere reports whether the request itself has bound a portal.
func boundHere(portal []byte, portals [][]byte, unnamed bool) bool {
	return len(portal) == 0 && unnamed || slices.ContainsFunc(portals, func(p []byte) bool { return bytes.Equal(p, portal) })
}

// executesAhead notes an Execute; portals, and the unnamed one, are those that the request has bound.
func (s *session) executesAhead(n *need, body []byte, scatters bool, portals [][]byte, unnamed bool) {
	n.pieces = n.pieces || scatters && len(body) > 4 && binary.BigEndian.Uint32(body[len(body)-4:]) != 0
	portal := cut(body)
	if boundHere(portal, portals, unnamed) {
		return
	}
	s.runs(s.boundBefore(portal))
	n.pieces = n.pieces || s.cursors[string(portal)] != nil
	if s.spread == nil {
		return
	}
	if len(portal) == 0 && n.err == nil && s.spread.noUnnamed && s.cursors[""] == nil {
		n.err = errNoPortal(portal)
	}
	if at, ok := s.spread.portals[string(portal)]; ok && n.shard == router.AnyShard {
		n.shard = at
	}
}

// describesAhead reports whether a Describe is of an open query.
func (s *session) describesAhead(body []byte, portals [][]byte, unnamed bool) bool {
	if len(body) < 2 || body[0] != 'P' {
		return false
	}
	portal := cut(body[1:])
	return s.cursors[string(portal)] != nil && !boundHere(portal, portals, unnamed)
}
