package proxy

import (
	"strings"

	"shardproxy/query"
	"shardproxy/wire"
)

// noteTold remembers what the client is told of parameters that the session
// itself depends on.
func (s *session) noteTold(size int) {
	name, value, ok := wire.CString(s.lease.Buffered()[5:size])
	if !ok {
		return
	}
	switch string(name) {
	case "DateStyle":
		s.dateStyle = string(cut(value))
	case "is_superuser", "session_authorization":
		if s.toldOfRole == nil {
			s.toldOfRole = map[string]string{}
		}
		s.toldOfRole[string(name)] = string(cut(value))
	}
}

// tellOfRole tells the client that it is the login role again, when its role
// went without a word from the server: that one had never been given it.
func (s *session) tellOfRole() {
	if len(s.toldOfRole) == 0 || len(identityOf(s.settings)) > 0 {
		return
	}
	for _, name := range [...]string{"is_superuser", "session_authorization"} {
		told, ok := s.toldOfRole[name]
		if own := s.greeted.values[name]; ok && told != own {
			s.commitHold()
			s.client.SetOutput(wire.AppendParameterStatus(s.client.Output(), name, own))
			delete(s.toldLater, name)
		}
	}
	clear(s.toldOfRole)
}

// discardsOwn reports whether a ParameterStatus comes from a DISCARD ALL that
// took away what the client's start-up packet asked for, which it gets back.
func (s *session) discardsOwn(front *expect, size int) bool {
	byQuery := front != nil && front.plan != nil && front.plan.Single != nil && front.plan.Single.Kind == query.KindDiscard
	if !byQuery && !s.discarded {
		return false
	}
	_, own := s.base.Get(strings.ToLower(string(cut(s.lease.Buffered()[5:size]))))
	return own
}

// learnedMax bounds the parameters that a server may report to a login, learnedBytes
// what each may take.
const (
	learnedMax   = 500
	learnedBytes = 64 << 10
)

// learn notes a parameter that a login's settings changed.
func (s *session) learn(kind byte, size int) {
	if s.learning == nil || kind != wire.MsgParameterStatus {
		return
	}
	name, rest, ok := wire.CString(s.lease.Buffered()[5:size])
	if ok {
		s.learning[string(name)] = string(cut(rest))
	}
}
