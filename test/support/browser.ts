/** A browser for tests, where there is one. */
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium, type Page } from 'playwright-core';

const PLACES = [process.env['CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** The browser's program; undefined where none is found. */
export const chromiumPath = PLACES.find((path) => path !== undefined && existsSync(path));

if (!chromiumPath) {
  console.warn('Browser tests are skipped: no Chromium found. Install one (Debian: apt-get install chromium) or name it in CHROMIUM.');
}

export interface OpenPage {
  readonly page: Page;
  /** Addresses asked for that are not of the given origin. */
  readonly foreign: string[];
  /** Errors of the page's scripts and of its console. */
  readonly errors: string[];
  close(): Promise<void>;
}

/** @returns a page with nothing stored, that has not gone anywhere yet. */
export async function openPage(origin: string): Promise<OpenPage> {
  const profile = await mkdtemp(join(tmpdir(), 'replique-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: chromiumPath ?? '',
    headless: true,
    viewport: { width: 1280, height: 900 },
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  const page = await context.newPage();
  const foreign: string[] = [];
  const errors: string[] = [];
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(data|blob|about):/.test(url)) foreign.push(url);
  });
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error' && !message.location().url.endsWith('/favicon.ico')) errors.push(`${message.text()} (${message.location().url})`);
  });
  return {
    page,
    foreign,
    errors,
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}
