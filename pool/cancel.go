package pool

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"

	"shardproxy/wire"
)

// Cancel asks the server to cancel what the connection runs now. It must be
// called by the borrower, or while the borrower cannot release the connection.
// The request travels in a goroutine; until the server has taken it (it closes
// the cancel connection after it has signalled the process), a connection that
// is released meanwhile is not lent again, so that the request can never hit
// the statement of another borrower. done, unless nil, is called in the end,
// whatever came of it.
func (s *Server) Cancel(done func()) {
	if done == nil {
		done = func() {}
	}
	p := s.pool
	p.mu.Lock()
	if !s.lent || p.pools.closed.Load() {
		p.mu.Unlock()
		done()
		return
	}
	s.cancels++
	p.mu.Unlock()
	p.pools.stats.cancels.Add(1)
	p.pools.tasks.Go(func() {
		ctx, stop := context.WithTimeout(p.pools.ctx, p.target.ConnectTimeout)
		defer stop()
		err := p.sendCancel(ctx, s.key)
		defer done()
		p.mu.Lock()
		defer p.mu.Unlock()
		s.cancels--
		if err != nil {
			p.pools.opt.Logger.Info("cancel request not delivered", "node", p.target.Address, "error", err)
			// Unknown whether the server got it: the connection is not safe to lend.
			s.lifetime = -1
		}
		if s.parked && s.cancels == 0 {
			s.parked = false
			p.settleLocked(s)
		}
	})
}

// sendCancel delivers a cancel request over a connection of its own, encrypted
// as the server connections are.
func (p *nodePool) sendCancel(ctx context.Context, key wire.CancelKey) error {
	cfg, err := p.target.Config()
	if err != nil {
		return err
	}
	network, addr := "tcp", p.target.Address
	if len(cfg.Host) > 0 && cfg.Host[0] == '/' {
		network, addr = "unix", fmt.Sprintf("%s/.s.PGSQL.%d", cfg.Host, cfg.Port)
	}
	var c net.Conn
	if c, err = cfg.DialFunc(ctx, network, addr); err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if cfg.TLSConfig != nil {
		if c, err = startTLS(ctx, c, cfg.TLSConfig); err != nil {
			return err
		}
	}
	if _, err := c.Write(wire.AppendCancelRequest(nil, key)); err != nil {
		return err
	}
	// The server closes when the signal has been sent.
	if _, err := io.Copy(io.Discard, c); err != nil {
		return fmt.Errorf("wait for the server to take the cancel request: %w", err)
	}
	return nil
}

func startTLS(ctx context.Context, c net.Conn, cfg *tls.Config) (net.Conn, error) {
	if _, err := c.Write(wire.AppendSSLRequest(nil)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		if cfg.InsecureSkipVerify && cfg.VerifyPeerCertificate == nil {
			return c, nil // "prefer": the server connections are not encrypted either
		}
		return nil, fmt.Errorf("server refuses TLS for the cancel request")
	}
	t := tls.Client(c, cfg)
	return t, t.HandshakeContext(ctx)
}
