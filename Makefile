# A thin front: the work is Meson's (meson.build) and Ninja's. `make help` says what there is.

BUILD  ?= build
PREFIX ?= /usr/local

.PHONY: build demo test bench install clean format help packages

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

demo: build
	@tools/demo $(BUILD)/lodge

test: sections = test
test: build
	@tools/test $(BUILD)

bench: sections = bench
bench: build
	@bench/run $(BUILD)/lodge

# What is missing is installed before anything is configured. When nothing is, this takes 10 ms.
packages:
	@tools/install-packages build run $(sections)

$(BUILD)/build.ninja: | packages
	@meson setup $(BUILD) --prefix='$(PREFIX)'

install: build
	@meson setup --reconfigure $(BUILD) --prefix='$(PREFIX)' >/dev/null
	@meson install -C $(BUILD) --destdir='$(DESTDIR)'

clean:
	@rm -rf $(BUILD)

format:
	@tools/install-packages test
	@find src tests bench -name '*.[ch]' -exec clang-format -i {} +

help:
	@echo 'make           build $(BUILD)/lodge, after installing the packages that needs'
	@echo 'make demo      make a Debian image and run it'
	@echo 'make test      run every test; SLOW=1 runs the slow ones too'
	@echo 'make bench     measure against other programs'
	@echo 'make install   with PREFIX=$(PREFIX) and DESTDIR'
	@echo 'make format    clang-format over all of the C'
	@echo 'make clean     remove $(BUILD)/'
