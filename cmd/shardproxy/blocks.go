package main

import (
	"fmt"
	"time"

	"shardproxy/config"
	"shardproxy/proxy"
)

// configuredBlocks returns the statements that the configuration blocks, as of now.
func configuredBlocks(conf *config.Database, now time.Time) ([]proxy.Block, error) {
	var all []proxy.Block
	for i, text := range conf.Blocks {
		b, err := proxy.Blockable(text)
		if err != nil {
			return nil, fmt.Errorf("databases.%s.blocks[%d]: %w", conf.Name, i, err)
		}
		b.Since = now
		all = append(all, b)
	}
	return all, nil
}

// block has the database block what its configuration says.
func (db *database) block(conf *config.Database) {
	all, _ := configuredBlocks(conf, time.Now()) // load has made sure
	db.proxy.SetBlocks(all)
}

// Block implements admin.Steerer.
func (s *source) Block(name string, b proxy.Block) error {
	db, err := s.find(name)
	if err != nil {
		return err
	}
	return db.proxy.Block(b)
}

// Unblock implements admin.Steerer.
func (s *source) Unblock(name string, f uint64) (bool, error) {
	db, err := s.find(name)
	if err != nil {
		return false, err
	}
	return db.proxy.Unblock(f), nil
}
