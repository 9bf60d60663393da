package router

import (
	"errors"

	"shardproxy/wire"
)

// Blocked returns a plan for the same text that runs nowhere, on one shard or several,
// because an operator wants it so: why is what the client is told. Any server may still
// describe the statement.
func (p *Plan) Blocked(why *wire.Error) *Plan {
	return &Plan{
		Statement: p.Statement, Intent: p.Intent, MayWrite: p.MayWrite, Effects: p.Effects, Single: p.Single, Exact: p.Exact,
		Where: Refused, Refusal: &Refusal{Reason: reasonBlocked, Why: why.Message, Hint: why.Hint, told: why.WithCause(errors.Join(because(reasonBlocked), why.Cause))},
	}
}

// BlockedBy returns what the client is told of a plan that Blocked has made, nil for
// all others and for no plan.
func (p *Plan) BlockedBy() *wire.Error {
	if p == nil || p.Where != Refused || p.Refusal == nil {
		return nil
	}
	return p.Refusal.told
}
