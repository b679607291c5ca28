/* Where the ACPI power management registers are, for acpi_pm.c and the tables that tell of them. */
#pragma once

enum {
	ACPI_PM1_EVENT = 0x600,   /* status and enable, 2 bytes each */
	ACPI_PM1_CONTROL = 0x604, /* 2 bytes */
	ACPI_PM_TIMER = 0x608,    /* 4 bytes */
	ACPI_RESET = 0xcf9,
	ACPI_RESET_VALUE = 0x06,
	ACPI_SCI = 9,
	ACPI_S5_TYPE = 5, /* SLP_TYP of soft-off, as the DSDT's \_S5 says */
};
