package failover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// probeSQL is asked on primaries and replicas alike. The functions of the
// WAL being written fail during recovery and those of replay mean nothing
// outside of it, so that the role, read once, guards them. The timeline of a
// primary is that of the file it writes, right from the first moment after a
// promotion; the control file follows with the next checkpoint only. That of a
// replica is read after its replay position: should it move to the next
// timeline in between, it had not replayed past the fork.
const probeSQL = `
SELECT s.recovering,
       c.system_identifier,
       CASE WHEN NOT s.recovering THEN pg_walfile_name(pg_current_wal_insert_lsn()) END,
       CASE WHEN NOT s.recovering THEN pg_current_wal_insert_lsn() - '0/0'::pg_lsn END,
       CASE WHEN NOT s.recovering THEN pg_current_wal_flush_lsn() - '0/0'::pg_lsn END,
       CASE WHEN s.recovering THEN pg_last_wal_replay_lsn() - '0/0'::pg_lsn END,
       CASE WHEN s.recovering THEN pg_last_wal_receive_lsn() - '0/0'::pg_lsn END,
       CASE WHEN s.recovering THEN greatest(k.timeline_id, v.min_recovery_end_timeline,
            (SELECT received_tli FROM pg_stat_wal_receiver)) END,
       CASE WHEN s.recovering THEN (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint END,
       (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint,
       current_setting('default_transaction_read_only'),
       i.wal_block_size,
       i.bytes_per_wal_segment
  FROM (SELECT pg_is_in_recovery() AS recovering OFFSET 0) s,
       pg_control_system() c, pg_control_checkpoint() k, pg_control_recovery() v, pg_control_init() i`

const probeColumns = 14

// probeName is the name of the prepared statement.
const probeName = "shardproxy_probe"

// ProberOptions say how nodes are reached.
type ProberOptions struct {
	Nodes int // how many
	// Config returns how to connect to a node: address, user, password, TLS,
	// database. It is asked before every connection, so that changed secrets
	// are picked up. The result is copied.
	Config func(NodeID) (*pgconn.Config, error)
}

// PgProber asks nodes over one control connection each, kept between probes.
// See the package comment for the rights that its user needs.
type PgProber struct {
	opts     ProberOptions
	conns    []*control
	lastConn atomic.Uint64
}

// control is one control connection; used by one goroutine at a time.
type control struct {
	conn *pgconn.PgConn
	id   uint64
	raw  net.Conn // under conn

	// connected is set when connecting is over: pgconn answers a timeout with
	// a cancel request over a second connection and, for up to 15 seconds, with
	// waiting for the server's last bytes. A stopped server gives neither, and
	// its replacement is to be found meanwhile.
	connected atomic.Bool
}

var errNoSecondConnection = errors.New("failover: a control connection sends no cancel requests")

// close ends the connection at once and waits for pgconn to be done with it.
func (c *control) close() {
	if !c.conn.IsClosed() {
		// A Terminate that does not fit into the socket's buffer is not waited for.
		_ = c.raw.SetDeadline(time.Now().Add(100 * time.Millisecond))
		_ = c.conn.Close(context.Background()) // there is nobody left to tell
	}
	_ = c.raw.Close()
	<-c.conn.CleanupDone()
}

// NewPgProber returns a prober without connections.
func NewPgProber(opts ProberOptions) *PgProber {
	return &PgProber{opts: opts, conns: make([]*control, opts.Nodes)}
}

// Probe implements Prober. A kept connection that turns out to be broken is
// replaced once, so that its end is not taken for the server's.
func (p *PgProber) Probe(ctx context.Context, id NodeID) (Observation, error) {
	if c := p.conns[id]; c != nil {
		o, err := c.ask(ctx)
		if err == nil {
			return o, nil
		}
		p.drop(id)
		if ctx.Err() != nil {
			return Observation{}, fmt.Errorf("failover: probe: %w", err)
		}
	}
	c, err := p.connect(ctx, id)
	if err != nil {
		return Observation{}, fmt.Errorf("failover: connect for a probe: %w", err)
	}
	o, err := c.ask(ctx)
	if err != nil {
		c.close()
		return Observation{}, fmt.Errorf("failover: probe: %w", err)
	}
	p.conns[id] = c
	return o, nil
}

// Watch implements Prober.
func (p *PgProber) Watch(ctx context.Context, id NodeID) error {
	c := p.conns[id]
	if c == nil {
		<-ctx.Done()
		return nil
	}
	for {
		if err := c.conn.WaitForNotification(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// Close implements Prober.
func (p *PgProber) Close() {
	for id := range p.conns {
		p.drop(NodeID(id))
	}
}

func (p *PgProber) drop(id NodeID) {
	if c := p.conns[id]; c != nil {
		p.conns[id] = nil
		c.close()
	}
}

func (p *PgProber) connect(ctx context.Context, id NodeID) (*control, error) {
	config, err := p.opts.Config(id)
	if err != nil {
		return nil, err
	}
	config = config.Copy()
	if config.RuntimeParams == nil {
		config.RuntimeParams = map[string]string{}
	}
	config.RuntimeParams["application_name"] = "shardproxy monitor"
	config.RuntimeParams["search_path"] = "pg_catalog"
	c := &control{id: p.lastConn.Add(1)}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if c.connected.Load() {
			return nil, errNoSecondConnection
		}
		raw, err := dial(ctx, network, address)
		c.raw = raw
		return raw, err
	}
	c.conn, err = pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	c.connected.Store(true)
	if _, err := c.conn.Prepare(ctx, probeName, probeSQL, nil); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *control) ask(ctx context.Context) (Observation, error) {
	res := c.conn.ExecPrepared(ctx, probeName, nil, nil, nil).Read()
	if res.Err != nil {
		return Observation{}, res.Err
	}
	if len(res.Rows) != 1 {
		return Observation{}, fmt.Errorf("the node answered with %d rows", len(res.Rows))
	}
	o, err := decodeProbe(res.Rows[0])
	o.Connection = c.id
	return o, err
}

var errShortAnswer = errors.New("the node's answer has a wrong number of columns")

// decodeProbe reads one row of probeSQL in text format.
func decodeProbe(row [][]byte) (Observation, error) {
	var o Observation
	if len(row) != probeColumns {
		return o, errShortAnswer
	}
	d := decoder{row: row}
	o.InRecovery = d.bool(0)
	o.SystemID = uint64(d.int(1)) // a bigint on the wire, unsigned by meaning
	if o.InRecovery {
		o.Replay, o.Receive = d.lsn(5), d.lsn(6)
		o.Timeline = d.timeline(string(row[7]), 10)
		o.ReplayedAt = d.time(8)
	} else {
		name := string(row[2])
		if len(name) != 24 {
			d.fail(2)
		} else {
			o.Timeline = d.timeline(name[:8], 16)
		}
		o.Insert = recordEnd(d.lsn(3), d.int(12), d.int(13))
		o.Flush = d.lsn(4)
	}
	o.ServerTime, o.StartedAt = d.time(9), d.time(10)
	o.ReadOnly = d.bool(11)
	if d.err == nil && (o.Timeline == 0 || o.SystemID == 0) {
		d.err = errors.New("the node gave no timeline or no system identifier")
	}
	return o, d.err
}

// Sizes of the headers that begin every WAL page and every first page of a
// segment (access/xlog_internal.h: SizeOfXLogShortPHD, SizeOfXLogLongPHD).
const (
	pageHeader    = 24
	segmentHeader = 40
)

// recordEnd turns an insert position into the end of the record before it.
// At the border of a page PostgreSQL reports where the next record will begin,
// after the page's header, while a replica that has replayed everything reports
// the border: the comparison would find it behind for as long as nothing is
// written.
func recordEnd(insert LSN, page, segment int64) LSN {
	switch {
	case page <= 0 || segment <= 0:
		return insert
	case int64(insert)%segment == segmentHeader:
		return insert - segmentHeader
	case int64(insert)%page == pageHeader && int64(insert)%segment != pageHeader:
		return insert - pageHeader
	}
	return insert
}

// decoder reads columns and keeps the first error.
type decoder struct {
	row [][]byte
	err error
}

func (d *decoder) fail(i int) {
	if d.err == nil {
		d.err = fmt.Errorf("column %d of the node's answer is %.40q", i+1, d.row[i])
	}
}

// int returns 0 for NULL.
func (d *decoder) int(i int) int64 {
	if d.row[i] == nil {
		return 0
	}
	v, err := strconv.ParseInt(string(d.row[i]), 10, 64)
	if err != nil {
		d.fail(i)
	}
	return v
}

func (d *decoder) lsn(i int) LSN {
	v := d.int(i)
	if v < 0 {
		d.fail(i)
	}
	return LSN(v)
}

// bool never takes an empty answer for false: a node whose role did not come
// is not a primary.
func (d *decoder) bool(i int) bool {
	switch string(d.row[i]) {
	case "t", "on":
		return true
	case "f", "off":
		return false
	}
	d.fail(i)
	return false
}

// time returns the zero time for NULL.
func (d *decoder) time(i int) time.Time {
	if d.row[i] == nil {
		return time.Time{}
	}
	return time.UnixMicro(d.int(i))
}

func (d *decoder) timeline(text string, base int) uint32 {
	v, err := strconv.ParseUint(text, base, 32)
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("timeline %.40q of the node's answer: %w", text, err)
	}
	return uint32(v)
}
