package router

import "cmp"

// PlanKept is one entry of the plan cache. Of its text only the tally's is told, which holds no values.
type PlanKept struct {
	// Fingerprint and Text are those of the statistics; 0 and "" when nothing is counted.
	Fingerprint uint64
	Text        string
	// Way is where the statement runs, in a word; Why its refusal's reason, "" when it is not refused.
	Way, Why string
	Reads    bool // proven to read only
	Exact    bool // made for one text with its values
	Bytes    int64
	Calls    int64 // of all statements of the fingerprint, by whatever plan
	Path     string
	Role     string
	Current  bool // made under the newest catalog
}

// Plans returns what the plan cache holds now, in no order.
func (r *Router) Plans() (all []PlanKept) {
	var version uint64
	if c := r.opts.Catalog(); c != nil {
		version = r.version(c)
	}
	for i := range r.cache.sets {
		for j := range r.cache.sets[i] {
			if e := r.cache.sets[i][j].Load(); e != nil {
				all = append(all, e.kept(r.opts.Rules == nil, version))
			}
		}
	}
	return all
}

func (e *entry) kept(one bool, version uint64) PlanKept {
	p := e.plan
	k := PlanKept{Way: p.way(one), Reads: p.Intent == Read, Exact: e.exact, Bytes: e.size, Path: e.ctx.SearchPath, Role: e.ctx.Role, Current: e.version == version}
	if p.Tally != nil {
		k.Fingerprint, k.Text, k.Calls = p.Tally.Fingerprint, p.Tally.Text, p.Tally.Statement().Calls
	}
	if k.Path == UnknownPath {
		k.Path = "(unknown)"
	}
	if p.Refusal != nil {
		k.Why = cmp.Or(string(p.Refusal.Reason), "refused")
	}
	return k
}

// way names where a plan runs, in a word.
func (p *Plan) way(one bool) string {
	switch {
	case one:
		return "one"
	case p.Where == Refused:
		return "refused"
	case p.Scatters():
		return "scatter"
	case p.Splits():
		return "split"
	}
	return p.Where.String()
}
