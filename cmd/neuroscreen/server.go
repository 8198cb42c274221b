package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"neuroscreen/internal/client"
	"neuroscreen/internal/config"
)

// server says where the service is and how to be let in.
type server struct {
	Server  string        `help:"Address of the service." default:"http://127.0.0.1:8080" env:"NEUROSCREEN_SERVER"`
	Key     config.Secret `help:"API key. Better in the environment or a file than on the command line." env:"NEUROSCREEN_KEY"`
	KeyFile string        `help:"File that holds the API key; the service keeps its first admin key in admin.key in its data folder." type:"existingfile" env:"NEUROSCREEN_KEY_FILE"`
}

func (s server) open() (*client.API, error) {
	key := s.Key.Reveal()
	if key == "" && s.KeyFile != "" {
		b, err := os.ReadFile(s.KeyFile)
		if err != nil {
			return nil, err
		}
		key = strings.TrimSpace(string(b))
	}
	if key == "" {
		return nil, errors.New("no API key: set NEUROSCREEN_KEY or --key-file")
	}
	return client.New(s.Server, key, nil)
}

type keysCmd struct {
	Create keysCreateCmd `cmd:"" help:"Make a key; its secret is printed once."`
	List   keysListCmd   `cmd:"" help:"List the site's keys."`
	Revoke keysRevokeCmd `cmd:"" help:"Revoke a key at once."`
}

type keysCreateCmd struct {
	server
	Name string `arg:"" help:"Who or what will use it, for the audit trail."`
	Role string `required:"" enum:"uploader,clinician,researcher,admin" help:"uploader, clinician, researcher or admin."`
}

func (c *keysCreateCmd) Run(ctx context.Context) error {
	api, err := c.open()
	if err != nil {
		return err
	}
	res, err := api.CreateKeyWithResponse(ctx, client.NewKey{Name: c.Name, Role: client.Role(c.Role)})
	if err != nil {
		return err
	}
	if res.JSON201 == nil {
		return client.ProblemOf(res.HTTPResponse, res.Body)
	}
	fmt.Fprintf(os.Stderr, "key %s (%s) for %s; the secret is shown only now:\n", res.JSON201.Key.ID, c.Role, c.Name)
	fmt.Println(res.JSON201.Secret)
	return nil
}

type keysListCmd struct{ server }

func (c *keysListCmd) Run(ctx context.Context) error {
	api, err := c.open()
	if err != nil {
		return err
	}
	res, err := api.ListKeysWithResponse(ctx)
	if err != nil {
		return err
	}
	if res.JSON200 == nil {
		return client.ProblemOf(res.HTTPResponse, res.Body)
	}
	w := newTable()
	fmt.Fprintln(w, "id\tprefix\trole\tname\tlast used\trevoked")
	for _, k := range res.JSON200.Keys {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Prefix, k.Role, k.Name, day(k.LastUsedAt), day(k.RevokedAt))
	}
	return w.Flush()
}

type keysRevokeCmd struct {
	server
	ID string `arg:"" help:"The key's id, as keys list prints it."`
}

func (c *keysRevokeCmd) Run(ctx context.Context) error {
	api, err := c.open()
	if err != nil {
		return err
	}
	id, err := parseID(c.ID)
	if err != nil {
		return err
	}
	res, err := api.RevokeKeyWithResponse(ctx, id)
	if err != nil {
		return err
	}
	if res.StatusCode() >= 300 {
		return client.ProblemOf(res.HTTPResponse, res.Body)
	}
	return nil
}
