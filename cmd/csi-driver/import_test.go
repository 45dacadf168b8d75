package main

import (
	"errors"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

func TestRequireImportLabelReachesTheAccount(t *testing.T) {
	account(t)
	for _, required := range []bool{false, true} {
		client, err := connect(driver.ModeController, options{requireImport: required}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		_, err = client.CheckAttach(t.Context(), &cloud.Volume{ID: "01000000-0000-4000-8000-000000000001", Title: "by hand"}, false)
		if errors.Is(err, cloud.ErrNotOwned) != required {
			t.Errorf("required is %t: %v", required, err)
		}
	}
}
