// Package deploy has no code; its test reads the files that others deploy with.
package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"neuroscreen/internal/config"
)

// TestComposeHangsTogether: everything that a service refers to is there, and
// the settings that it is given exist.
func TestComposeHangsTogether(t *testing.T) {
	b, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Image       string
			Build       struct{ Context, Dockerfile string }
			DependsOn   map[string]any `yaml:"depends_on"`
			Environment map[string]string
			Secrets     []string
			Volumes     []string
			StopGrace   string `yaml:"stop_grace_period"`
		}
		Secrets map[string]struct{ File string }
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"postgres", "api", "worker"} {
		if _, ok := file.Services[name]; !ok {
			t.Errorf("no service %s", name)
		}
	}
	var settings []string
	for _, row := range config.Table() {
		settings = append(settings, row.Env)
		if row.Secret {
			settings = append(settings, row.Env+"_FILE")
		}
	}
	usedSecrets, usedVolumes := map[string]bool{}, map[string]bool{}
	for name, s := range file.Services {
		if s.Image == "" {
			t.Errorf("%s: no image", name)
		}
		if s.Build.Dockerfile != "" {
			if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if grace, _ := time.ParseDuration(s.StopGrace); s.Build.Dockerfile != "" && grace < 40*time.Second {
			t.Errorf("%s is killed %s after it is asked to stop, while it still gives its work back", name, grace)
		}
		for on := range s.DependsOn {
			if _, ok := file.Services[on]; !ok {
				t.Errorf("%s depends on %s, which is no service", name, on)
			}
		}
		for _, secret := range s.Secrets {
			usedSecrets[secret] = true
			if _, ok := file.Secrets[secret]; !ok {
				t.Errorf("%s: no secret %s", name, secret)
			}
		}
		for _, v := range s.Volumes {
			volume, _, _ := strings.Cut(v, ":")
			usedVolumes[volume] = true
			if _, ok := file.Volumes[volume]; !ok {
				t.Errorf("%s: no volume %s", name, volume)
			}
		}
		for env, value := range s.Environment {
			if secret, ok := strings.CutPrefix(value, "/run/secrets/"); ok && !slices.Contains(s.Secrets, secret) {
				t.Errorf("%s: %s names secret %s, which the service is not given", name, env, secret)
			}
			if s.Build.Dockerfile != "" && !slices.Contains(settings, env) {
				t.Errorf("%s: there is no setting %s", name, env)
			}
		}
	}
	for name, s := range file.Secrets {
		if !usedSecrets[name] {
			t.Errorf("no service uses secret %s", name)
		}
		if filepath.Dir(s.File) != "secrets" { // which git and the image's build leave out
			t.Errorf("secret %s lies in %s", name, s.File)
		}
	}
	for name := range file.Volumes {
		if !usedVolumes[name] {
			t.Errorf("no service uses volume %s", name)
		}
	}
}

// TestSecretsStayOut of the history and of the image's build.
func TestSecretsStayOut(t *testing.T) {
	for file, want := range map[string]string{"../.gitignore": "/deploy/secrets/", "../.dockerignore": "**/secrets"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(strings.Split(string(b), "\n"), want) {
			t.Errorf("%s does not hold %s", file, want)
		}
	}
}
