package failover

import (
	"fmt"
	"strings"
	"time"
)

// decide finds the primary.
func (s *State) decide(now time.Time) {
	v := Verdict{Primary: NoNode}
	for i := range s.nodes {
		if n := &s.nodes[i]; s.ours(n) {
			v.Timeline = max(v.Timeline, n.timeline)
		}
	}
	claimants := s.claimants(v.Timeline)
	s.markRivals(v.Timeline, claimants)
	switch len(claimants) {
	case 0:
		v.NoPrimary = s.whyNobody(v.Timeline)
	case 1:
		v.Primary, v.NoPrimary = s.admit(claimants[0], now)
	default:
		var names []string
		for _, id := range claimants {
			names = append(names, s.nodes[id].address)
		}
		v.NoPrimary = fmt.Sprintf("%s claim to be primary on timeline %d", strings.Join(names, " and "), v.Timeline)
	}
	if v.Primary != NoNode {
		s.incumbent, s.incumbentTimeline = v.Primary, v.Timeline
	}
	s.verdict = v
}

// claimants returns the nodes that may be the primary: ours, not in recovery,
// on the highest timeline that any node of the cluster has shown, reachable now
// or not. One that answers again but not often enough to be up counts too: it
// cannot be used yet, but nor can another beside it.
func (s *State) claimants(timeline uint32) []NodeID {
	var ids []NodeID
	for i := range s.nodes {
		if n := &s.nodes[i]; (n.up || n.oks > 0) && s.ours(n) && n.claims() && n.timeline == timeline {
			ids = append(ids, NodeID(i))
		}
	}
	return ids
}

// markRivals remembers who claimed against the incumbent. Should the incumbent
// then become unreachable, its rival still does not take over: the writes
// acknowledged by the incumbent are not on the rival.
func (s *State) markRivals(timeline uint32, claimants []NodeID) {
	held := false // the incumbent has not been seen giving up
	if s.incumbent != NoNode {
		n := &s.nodes[s.incumbent]
		held = s.ours(n) && n.claims() && n.timeline == timeline && s.incumbentTimeline == timeline
	}
	if !held {
		for i := range s.nodes {
			s.nodes[i].rival = false
		}
		return
	}
	for i := range s.nodes {
		if n := &s.nodes[i]; !n.claims() || n.timeline != timeline {
			n.rival = false
		}
	}
	if n := &s.nodes[s.incumbent]; !n.up && n.oks == 0 {
		return
	}
	for _, id := range claimants {
		if id != s.incumbent {
			s.nodes[id].rival = true
		}
	}
}

// admit says whether the only claimant is used.
func (s *State) admit(id NodeID, now time.Time) (NodeID, string) {
	n := &s.nodes[id]
	if !n.up {
		return NoNode, fmt.Sprintf("primary %s was down and %s", n.address, s.recovering(n))
	}
	if n.rival {
		return NoNode, fmt.Sprintf("%s claims to be primary on timeline %d as %s did, which does not answer now",
			n.address, n.timeline, s.nodes[s.incumbent].address)
	}
	if !n.readOnlySince.IsZero() && now.Sub(n.readOnlySince) < s.rules.SwitchoverWait {
		return NoNode, fmt.Sprintf("primary %s became read-only; waiting for its successor", n.address)
	}
	return id, ""
}

// recovering says how far a node is that was down and answers again.
func (s *State) recovering(n *node) string {
	return fmt.Sprintf("answers again, %d of %d times in a row", n.oks, s.rules.RecoverAfter)
}

// shownBy names a node that has shown the timeline.
func (s *State) shownBy(timeline uint32) string {
	for i := range s.nodes {
		if n := &s.nodes[i]; s.ours(n) && n.timeline == timeline {
			return n.address
		}
	}
	return "nobody"
}

func (s *State) whyNobody(timeline uint32) string {
	if s.systemID == 0 {
		return s.whyNoSystem()
	}
	for i := range s.nodes {
		n := &s.nodes[i]
		if !s.ours(n) || !n.claims() {
			continue
		}
		if n.timeline < timeline && n.up {
			return fmt.Sprintf("%s claims to be primary on timeline %d, but %s has shown timeline %d",
				n.address, n.timeline, s.shownBy(timeline), timeline)
		}
		if n.timeline == timeline && !n.up {
			return fmt.Sprintf("primary %s is down: %s", n.address, n.downReason)
		}
	}
	return "no node claims to be primary"
}

func (s *State) whyNoSystem() string {
	seen := false
	for i := range s.nodes {
		if !s.nodes[i].probed {
			return notProbedYet
		}
		seen = seen || s.nodes[i].seen
	}
	if seen {
		return "the nodes belong to different clusters and none to more of them than another"
	}
	return "no node answers"
}

// judge gives every node its health and the reason for it.
func (s *State) judge(now time.Time) {
	for i := range s.nodes {
		n := &s.nodes[i]
		health, reason := s.health(NodeID(i), n)
		if health != n.health {
			n.health, n.since = health, now
		}
		n.reason = reason
	}
}

func (s *State) health(id NodeID, n *node) (Health, string) {
	switch {
	case !n.probed:
		return Unknown, "not asked yet"
	case !n.up && !n.seen && n.fails == 0:
		return Unknown, n.lastError // saturated from the start
	case !n.up && n.fails == 0 && n.oks > 0:
		return Down, s.recovering(n)
	case !n.up:
		return Down, n.downReason
	case s.systemID == 0:
		return Unknown, s.whyNoSystem()
	case !s.ours(n):
		return Refused, fmt.Sprintf("belongs to another cluster: system identifier %d, the shard's is %d", n.obs.SystemID, s.systemID)
	case n.timeline < s.verdict.Timeline:
		return Refused, fmt.Sprintf("is on timeline %d, but %s has shown timeline %d",
			n.timeline, s.shownBy(s.verdict.Timeline), s.verdict.Timeline)
	case n.claims() && s.verdict.Primary != id:
		return Refused, s.verdict.NoPrimary
	case n.lagging && !n.lag.Known:
		return Lagging, "how far it is behind is not known"
	case n.lagging && n.lagGoods > 0:
		return Lagging, fmt.Sprintf("was too far behind; is taken back after %d good probes, %d so far", s.rules.RecoverAfter, n.lagGoods)
	case n.lagging:
		return Lagging, fmt.Sprintf("is %v and %d bytes behind, allowed are %v", n.lag.Time.Round(time.Millisecond), n.lag.Bytes, s.rules.MaxLag)
	}
	return Up, ""
}

// status returns node id as an operator sees it.
func (s *State) status(id NodeID) NodeStatus {
	n := &s.nodes[id]
	st := NodeStatus{
		ID: id, Address: n.address, Health: n.health, Reason: n.reason, Since: n.since, Lag: n.lag,
		ProbeLatency: n.latency, LastError: n.lastError, LastErrorAt: n.lastErrorAt,
		SilentSince: n.silentSince,
	}
	if n.seen {
		st.Role, st.Timeline, st.SystemID = n.obs.Role(), n.timeline, n.obs.SystemID
		st.LSN, st.ReadOnly = n.obs.LSN(), n.obs.ReadOnly
	}
	return st
}

// snapshot returns the state as the rest of the proxy sees it.
func (s *State) snapshot(version uint64, now time.Time) *Snapshot {
	snap := &Snapshot{
		Version: version, At: now,
		Primary: s.verdict.Primary, NoPrimary: s.verdict.NoPrimary, Timeline: s.verdict.Timeline,
		SystemID: s.systemID, Nodes: make([]NodeStatus, len(s.nodes)),
	}
	for i := range s.nodes {
		snap.Nodes[i] = s.status(NodeID(i))
		if n := &s.nodes[i]; n.health == Up && n.obs.InRecovery {
			snap.readable = append(snap.readable, NodeID(i))
		}
	}
	return snap
}
