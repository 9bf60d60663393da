package admin

import (
	"context"
	"strings"
	"time"
)

// Bounds of orders that ask all shards.
const (
	planTimeout  = time.Minute
	startTimeout = 10 * time.Minute // shards that join are given the schema first
)

// apiPlanOrder is what is sent to plan and to begin moves.
type apiPlanOrder struct {
	Database   string   `json:"database" doc:"whose slots; may be left out where one database has several shards"`
	Add        []string `json:"add" doc:"shards that join"`
	Remove     []string `json:"remove" doc:"shards that leave"`
	Weights    []string `json:"weight" doc:"shares of shards in relation to the others', as s1=2"`
	Tenants    []string `json:"tenant" doc:"keys whose slots go to the shard in to, as orders.customer_id=42"`
	Slots      string   `json:"slots" doc:"slots that go there, as 17,18,100-120"`
	To         string   `json:"to" doc:"the shard that slots and tenant are for"`
	By         string   `json:"by" doc:"what is spread evenly: slots, rows or bytes"`
	Threshold  string   `json:"threshold" doc:"how far from its share a shard may stay, as 5%"`
	Reversible bool     `json:"reversible" doc:"the sources are kept as the targets are, until complete or rollback"`
	Plan       string   `json:"plan" doc:"start: begins this plan and no other (409); it must be given"`
}

// order is the same as the console has it.
func (in *apiPlanOrder) order(database string) PlanOrder {
	o := PlanOrder{Database: database, Plan: in.Plan}
	for _, of := range []struct {
		name   string
		values []string
	}{
		{"add", in.Add}, {"remove", in.Remove}, {"weight", in.Weights}, {"tenant", in.Tenants},
		{"slots", given(in.Slots)}, {"to", given(in.To)}, {"by", given(in.By)}, {"threshold", given(in.Threshold)},
	} {
		for _, v := range of.values {
			o.Options = append(o.Options, PlanOption{of.name, v})
		}
	}
	if in.Reversible {
		o.Options = append(o.Options, PlanOption{Name: "reversible"})
	}
	return o
}

func given(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// plan plans moves, and begins them when that is wanted.
func (o *orders) plan(ctx context.Context, start bool, body []byte) (any, order, error) {
	var in apiPlanOrder
	if err := decodeOrder(body, &in); err != nil {
		return nil, order{}, err
	}
	if start && in.Plan == "" {
		return nil, order{}, errNoPlan()
	}
	database, werr := movingIn(o.opt.Source.Databases(), in.Database, in.Database != "")
	if werr != nil {
		return nil, order{}, werr
	}
	p, err := o.opt.Steerer.PlanMoves(ctx, in.order(database), start)
	if err != nil {
		return nil, order{database: database}, err
	}
	text := p.said()
	if !p.Started {
		text = strings.Replace(text, "plan ", "looked at: plan ", 1)
	}
	return p, order{text, database}, nil
}
