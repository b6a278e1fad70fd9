// A terminal's page of cameras: live pictures at the top, and a history of the day that is picked.
const { createApp, nextTick, onMounted, ref, watch } = Vue;
const site = window.SITE;
const stream = new URLSearchParams(location.search).get("streamName");
const midnight = day => new Date(`${day}T00:00:00`);
const iso = day => [day.getFullYear(), day.getMonth() + 1, day.getDate()].map(part => String(part).padStart(2, "0")).join("-");

const ask = async (day, hour) => {
  const hours = hour === null ? "" : `&hour=${hour}`;
  const forms = {
    named: () => fetch(`/api/history?stream=${stream}&date=${iso(day)}${hours}`),
    epoch: () => fetch("/api/history", { method: "POST", body: JSON.stringify({ stream, from: midnight(iso(day)).getTime() }) }),
    nameless: () => fetch(`/api/history?stream=${stream}&ago=${Math.round((midnight(site.today) - midnight(iso(day))) / 86400000)}`),
  };
  const answer = await forms[site.asks]();
  if (!answer.ok) throw new Error(`history: ${answer.status}`);
  return answer.json();
};

if (site.first_weekday !== null) ElementPlus.dayjs.Ls.en.weekStart = site.first_weekday;

createApp({
  setup() {
    const live = ref([]);
    const pictures = ref([]);
    const day = ref(site.shows_today_in_picker ? midnight(site.today) : null);
    const isLoading = ref(false);
    let newest = 0;

    const show = async picked => {
      const number = ++newest;
      isLoading.value = site.veils;
      if (site.debounce_milliseconds) await new Promise(resolve => setTimeout(resolve, site.debounce_milliseconds));
      try {
        const parts = [];
        for (const hour of site.by_hour ? Array(24).keys() : [null]) {
          parts.push(...await ask(picked, hour));
          if (number !== newest) return;
          pictures.value = [...parts];
          await nextTick();
        }
      } catch (error) {
        if (!site.keeps_old_on_error) pictures.value = [];
        ElementPlus.ElMessage.error(error.message);
        throw error;
      } finally {
        isLoading.value = false;
      }
    };
    const poll = async () => {
      live.value = await (await fetch(`/api/live?stream=${stream}&t=${Date.now()}`)).json();
      setTimeout(poll, site.live_milliseconds);
    };
    onMounted(() => { poll(); show(midnight(site.today)); });
    watch(day, picked => { if (!site.is_deaf) show(picked ?? midnight(site.today)); });

    const locale = window[`ElementPlusLocale${site.locale}`];
    return { site, locale, live, pictures, day, isLoading, isDisabled: date => iso(date) > site.today };
  },
  template: `
    <el-config-provider :locale="locale">
      <h1>Live</h1>
      <div class="gallery"><el-image v-for="picture in live" :key="picture" :src="picture" /></div>
      <section :id="site.section_id">
        <h2>Camera History</h2>
        <el-date-picker v-model="day" type="date" placeholder="Pick a day" :disabled-date="isDisabled" />
        <div class="gallery" :class="{ scrolled: site.scrolls }" v-loading="isLoading">
          <el-image v-for="(picture, index) in pictures" :key="site.reuses_images ? index : picture" :src="picture"
            :preview-src-list="pictures" :initial-index="index" lazy fit="cover" />
        </div>
      </section>
    </el-config-provider>`,
}).use(ElementPlus).mount("#app");
