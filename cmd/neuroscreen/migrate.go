package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"neuroscreen/internal/config"
	"neuroscreen/internal/service"
	"neuroscreen/migrations"
)

type migrateCmd struct {
	config.Storage
}

// Run brings the database to this program's schema. The server does the same
// when it starts; this is for those who want it done beforehand.
func (c *migrateCmd) Run(ctx context.Context) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := service.OpenStorage(ctx, c.Storage, log)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := s.Close(context.WithoutCancel(ctx)); err == nil {
			err = closeErr
		}
	}()
	_, have, err := migrations.Version(ctx, s.Pool)
	if err != nil {
		return err
	}
	fmt.Println("the database has schema version", have)
	return nil
}
