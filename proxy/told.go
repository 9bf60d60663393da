package proxy

import (
	"bytes"
	"slices"

	"shardproxy/wire"
)

// A server tells of parameters at the end of a simple query, and not of those that are
// then what they were. So does a script, and a rollback on several shards.

// reported keeps a ParameterStatus for the end: the last of each parameter.
func (sc *script) reported(frame []byte) {
	name := cut(frame[5:])
	sc.params = slices.DeleteFunc(sc.params, func(other []byte) bool { return bytes.Equal(cut(other[5:]), name) })
	sc.params = append(sc.params, bytes.Clone(frame))
}

// tellTakenBack tells the client of the parameters that a rollback has changed.
func (s *session) tellTakenBack() {
	for frames := s.takenBack; len(frames) > 0; {
		frame := frames[:frameSize(frames)]
		frames = frames[len(frame):]
		switch {
		case s.script != nil:
			s.script.reported(frame)
		case s.wasTold(frame):
			s.client.SetOutput(append(s.client.Output(), frame...))
		}
	}
	s.takenBack = nil
}

// wasTold notes a ParameterStatus frame for the client, and reports whether it is news.
func (s *session) wasTold(frame []byte) (news bool) {
	if s.places == nil || s.greeted == nil {
		return true
	}
	name, rest, _ := wire.CString(frame[5:])
	value := string(cut(rest))
	told, ok := s.toldLater[string(name)]
	if !ok {
		told, ok = s.greeted.values[string(name)]
	}
	if ok && told == value {
		return false
	}
	if s.toldLater == nil {
		s.toldLater = map[string]string{}
	}
	s.toldLater[string(name)] = value
	return true
}
